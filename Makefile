# Everything runs in .venv, or in .venv-check where no engine is needed; the first target that needs
# one installs it.
PORT ?= 8091
REPLICAS ?= 1
PIPELINE ?= tts
METRICS ?= 1
ENGINES ?=
PYTHONS ?=
REQUESTS ?= 100000
SECONDS ?= 150

PYTHON3 := $(shell command -v python3.11 || command -v python3.12 || command -v python3)
RUN := .venv/bin/python -m

# Every server has several processes, and they would all compile the whole engine at every start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help check check-pythons venv demo kit serve lint test test-engines soak thorough bench clean

help:
	@echo "make check  lint, types and unit tests, without an engine; a minute the first time"
	@echo "make check-pythons [PYTHONS='3.10 3.13']   those and the process tests on every Python"
	@echo "make demo   [PIPELINE=tts|omni|image|video|duplex]   serve, ask, compare /metrics with the client"
	@echo "make kit    [SECONDS=150]   the dashboards with data: servers, traffic, Prometheus, a page for each"
	@echo "make serve  [PORT=8091 REPLICAS=1 PIPELINE=tts|omni|duplex|llm|image|video|bagel|writer METRICS=1]   a server"
	@echo "make test   every check and test, against the real engine"
	@echo "make test-engines [ENGINES='0.28.0']   contract and end-to-end tests by engine release, as a table"
	@echo "make soak   [REQUESTS=100000]   memory and tables over many requests through the real engine's front"
	@echo "make thorough   what holds of every stream of audio, by 10,000 examples instead of 100"
	@echo "make bench  what the plugin costs and how well the backlog predicts, as ratios"
	@echo "make lint   ruff and mypy alone"
	@echo "make venv   install the engine, the plugin and the tools into .venv"
	@echo "make clean  remove .venv and everything generated"

check:
	@$(PYTHON3) -m testbed.install --check
	.venv-check/bin/ruff check
	.venv-check/bin/ruff format --check
	.venv-check/bin/mypy
	.venv-check/bin/python -m pytest tests/unit examples

check-pythons:
	@PYTHONS='$(PYTHONS)' $(PYTHON3) -m testbed.install.checks

venv:
	@$(PYTHON3) -m testbed.install

demo:
	@$(PYTHON3) -m testbed.install --pipeline $(PIPELINE)
	@$(RUN) testbed.demo --pipeline $(PIPELINE)

kit:
	@for pipeline in tts image video duplex; do \
		$(PYTHON3) -m testbed.install --pipeline $$pipeline || exit 1; done
	@$(RUN) testbed.kit --seconds $(SECONDS)

serve:
	@$(PYTHON3) -m testbed.install --pipeline $(PIPELINE)
	@exec $(RUN) testbed.serve --pipeline $(PIPELINE) --replicas $(REPLICAS) --port $(PORT) --metrics $(METRICS)

lint: venv
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

test: lint
	$(RUN) pytest

# An environment per release, 5 GB each; half an hour of servers for each that has one.
test-engines: venv
	@$(RUN) testbed.engine_matrix $(ENGINES)

soak: venv
	@VLLM_LOGGING_LEVEL=CRITICAL $(RUN) tests.engine.soak $(REQUESTS)

thorough: venv
	$(RUN) pytest -q --hypothesis-profile thorough --hypothesis-show-statistics \
		tests/unit/test_playback.py tests/unit/test_streams.py tests/unit/test_utterances.py

bench: venv
	$(RUN) testbed.bench

clean:
	rm -rf .venv .venv-* .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info

"""A language model before a diffusion model: what is handed over, and between whom.

BAGEL hands its KV cache over, once for the prompt, once more for a negative prompt and twice more
for a picture to edit, as companions of the request; the writer hands over a payload, to a diffusion
stage inside the server's process.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed.clients import audio, visual
from testbed.clients.visual import Answer
from testbed.server import Server
from tests.e2e.conftest import ON, observing, outcomes, settled
from tests.e2e.engine import TRAITS, engine_has
from tests.e2e.ledger import Ledger, edges
from vllm_omni_metrics_plugin.scrape import Scrape, scrape

WRITES_AND_PAINTS = "pipelines of a writer and a painter"
pytestmark = pytest.mark.skipif(
    not engine_has(WRITES_AND_PAINTS), reason=TRAITS[WRITES_AND_PAINTS].otherwise
)

TRANSFERS = (
    "transfer_size_bytes",
    "transfer_tx_time_ms",
    "transfer_in_flight_time_ms",
    "transfer_rx_decode_time_ms",
)
WAITS = "vllm:omni_kv_wait_seconds"
#: Of BAGEL, for four that are asked for: it goes from one point in time to the next.
STEPS = 3

Ask = Callable[[str], Answer]


@pytest.fixture(scope="module")
def bagel_server(logs: Path) -> Iterator[Server]:
    """Two diffusion stages in processes of their own, which go step by step."""
    with Server("bagel", replicas=2, env=ON, log_path=logs / "bagel.log") as server:
        yield server


@pytest.fixture(scope="module")
def writer_server(logs: Path) -> Iterator[Server]:
    with Server("writer", env=ON, log_path=logs / "writer.log") as server:
        yield server


def hops(gained: Scrape, family: str) -> dict[tuple[str, str, str, str], float]:
    """How many there were on each edge: stage and replica of the sender, then of the receiver."""
    labels = ("from_stage", "from_replica", "to_stage", "to_replica")
    return {
        tuple(sample.labels[label] for label in labels): sample.value  # type: ignore[misc]
        for sample in gained.named(f"vllm:omni_{family}_count")
        if sample.value
    }


def images_by_replica(gained: Scrape) -> dict[str, float]:
    return gained.by("vllm:omni_image_num_total", "replica", stage="1")


@pytest.mark.parametrize("server", ["bagel_server", "writer_server"])
def test_both_stages_are_shown_as_what_they_are(
    request: pytest.FixtureRequest, server: str
) -> None:
    running: Server = request.getfixturevalue(server)
    shown = {
        (labels["stage"], labels["replica"], labels["stage_type"])
        for labels in scrape(running.url).label_sets("vllm:omni_stage_info")
    }
    painters = 2 if server == "bagel_server" else 1
    assert shown == {("0", "0", "llm")} | {("1", str(n), "diffusion") for n in range(painters)}


HANDED_OVER: dict[str, tuple[Ask, int]] = {
    "prompt": (functools.partial(visual.images, steps=4), 1),
    "negative prompt": (functools.partial(visual.images, steps=4, negative_prompt="ugly"), 2),
    "picture to edit": (functools.partial(visual.edit, steps=4), 3),
}


@pytest.mark.parametrize("asked", HANDED_OVER)
def test_kv_caches_go_to_the_replica_that_makes_the_image(bagel_server: Server, asked: str) -> None:
    ask, caches = HANDED_OVER[asked]
    made: dict[str, float] = {}
    for _ in range(2):  # the replicas take turns
        with observing(bagel_server) as seen:
            answer = ask(bagel_server.url)
        gained = seen.gained
        assert answer.status == 200, answer
        [replica] = images_by_replica(gained)
        made[replica] = made.get(replica, 0) + 1
        for family in TRANSFERS:
            assert hops(gained, family) == {("0", "0", "1", replica): caches}, family
        assert gained.sum("vllm:omni_transfer_size_bytes_sum") > 1000 * caches
        assert gained.sum("vllm:omni_image_pixels_sum", stage="1") == answer.pixels
        assert gained.sum("vllm:omni_diffusion_steps_total", replica=replica) == STEPS
        assert gained.sum("vllm:omni_num_inference_steps_sum", replica=replica) == STEPS
        assert gained.sum("vllm:omni_metrics_missing_samples_total") == 0
        assert outcomes(gained) == {"stop": 1}
    assert made == {"0": 1, "1": 1}


def test_size_that_the_diffusion_stage_refuses_is_a_rejection(bagel_server: Server) -> None:
    with observing(bagel_server) as seen:
        answer = visual.images(bagel_server.url, size="1024x1024", steps=4)
    gained = seen.gained
    assert answer.status == 400, answer
    assert outcomes(gained) == {"rejected": 1}
    assert gained.sum("vllm:omni_e2e_request_latency_seconds_count") == 0
    assert gained.sum("vllm:omni_image_num_total") == 0
    assert gained.sum("vllm:omni_transfer_failures_total") == 0, "nobody tried to take it"


def test_chat_with_the_language_model_alone_hands_nothing_over(bagel_server: Server) -> None:
    with observing(bagel_server) as seen:
        answer = audio.chat(bagel_server.url, modalities=("text",), tokens=8)
    assert answer.status == 200, answer
    assert sum(outcomes(seen.gained).values()) == 1
    assert hops(seen.gained, "transfer_size_bytes") == {}
    assert seen.gained.sum("vllm:omni_kv_wait_seconds_count") == 0
    assert images_by_replica(seen.gained) == {}


def test_client_that_hangs_up_is_an_abort_without_images(bagel_server: Server) -> None:
    with observing(bagel_server) as seen:
        answer = visual.images(bagel_server.url, size="512x512", steps=30, timeout=0.7)
    assert answer.cancelled, answer
    assert outcomes(seen.gained) == {"abort": 1}
    assert images_by_replica(seen.gained) == {}


def test_payloads_reach_a_diffusion_stage_inside_the_server(writer_server: Server) -> None:
    asks = [functools.partial(visual.images, writer_server.url, n=n, steps=4) for n in (1, 2, 1)]
    with observing(writer_server) as seen:
        answers = audio.together(asks, at_once=3)
    gained = seen.gained
    assert [answer.status for answer in answers] == [200] * 3, answers
    for family in TRANSFERS:
        assert hops(gained, family) == {("0", "0", "1", "0"): 3}, family
    assert images_by_replica(gained) == {"0": 4}
    assert gained.sum("vllm:omni_image_pixels_sum") == sum(answer.pixels for answer in answers)
    assert gained.sum("vllm:omni_diffusion_steps_total", stage="1") == 12
    assert gained.sum("vllm:omni_metrics_missing_samples_total") == 0
    assert sum(outcomes(gained).values()) == 3
    assert set(outcomes(gained)) <= {"stop", "length"}, "length if the writer had more to say"


#: Has BAGEL's diffusion engine inside the server's process, as a pipeline can ask for. Its caches
#: are handed over when the language model is done, not when it has read its prompt.
_INLINE = """
import dataclasses


def register():
    from vllm_omni.config.pipeline_registry import OMNI_PIPELINES, register_pipeline
    from vllm_omni.model_executor.models.bagel.pipeline import BAGEL_PIPELINE, BAGEL_THINK_PIPELINE

    if "bagel_inline" not in OMNI_PIPELINES:
        thinker, painter = BAGEL_THINK_PIPELINE.stages
        stages = (thinker, dataclasses.replace(painter, inline_diffusion=True))
        inline = {"model_type": "bagel_inline", "hf_architectures": (), "stages": stages}
        register_pipeline(dataclasses.replace(BAGEL_PIPELINE, **inline))
"""


def inline_and_not_step_by_step(content: dict[str, Any]) -> None:
    content["pipeline"] = "bagel_inline"
    content["stages"][1]["step_execution"] = False


def test_kv_caches_and_steps_are_counted_inside_the_server_and_in_bagels_own_loop(
    logs: Path, tmp_path: Path
) -> None:
    ledger = Ledger(tmp_path, {"testbed_inline": _INLINE})
    with Server(
        "bagel",
        env={**ON, **ledger.environment},
        deploy=inline_and_not_step_by_step,
        log_path=logs / "inline.log",
    ) as server:
        began = time.monotonic()
        with observing(server) as seen:
            answers = [ask(server.url) for ask, _ in HANDED_OVER.values()]
            caches = sum(caches for _, caches in HANDED_OVER.values())
            # The first stage may hear of the last one when its image is there already.
            held = settled(server, lambda now: now.sum(f"{WAITS}_count") >= caches)
        took = time.monotonic() - began
        fetched = ledger.sizes("fetched")
        stored = ledger.sizes("stored")
        processes = {(1, 0): server.pid, **server.stage_processes()}

    gained = seen.gained
    assert [answer.status for answer in answers] == [200] * 3, answers
    assert {pid: len(sizes) for pid, sizes in stored.items()} == {processes[0, 0]: caches}
    assert {pid: len(sizes) for pid, sizes in fetched.items()} == {processes[1, 0]: caches}
    for family in TRANSFERS:
        assert hops(gained, family) == {("0", "0", "1", "0"): caches}, family
    labels = {"stage": "0", "replica": "0", "model_name": server.model}
    print(held.by(f"{WAITS}_count", "connector_type"), held.sum(f"{WAITS}_sum"))
    assert held.sum(f"{WAITS}_count", **labels) == held.sum(f"{WAITS}_count") == caches
    assert 0 < held.sum(f"{WAITS}_sum") < caches * took
    sizes = sum(map(sum, fetched.values()))
    assert edges(gained, "transfer_size_bytes_sum") == {(0, 0, 1, 0): sizes}
    assert images_by_replica(gained) == {"0": len(answers)}
    assert gained.sum("vllm:omni_image_pixels_sum") == sum(answer.pixels for answer in answers)
    assert gained.sum("vllm:omni_diffusion_steps_total", stage="1") == STEPS * len(answers)
    assert gained.sum("vllm:omni_metrics_missing_samples_total") == 0
    assert sum(outcomes(gained).values()) == len(answers)
    assert set(outcomes(gained)) <= {"stop", "length"}, "length if it had more to think"

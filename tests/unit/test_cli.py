"""The command: what is installed, and what a server says about it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import EntryPoint
from typing import Any

import pytest
from prometheus_client import generate_latest

from vllm_omni_metrics_plugin import cli
from vllm_omni_metrics_plugin.hooks import Event, RequestArrived, hookimpl, plugins
from vllm_omni_metrics_plugin.hooks.manager import ENTRY_POINT_GROUP
from vllm_omni_metrics_plugin.testing import EVENTS, make


class Faulty:
    @hookimpl
    def omni_request_arrived(self, event: Event) -> None:
        raise RuntimeError


@contextmanager
def serving(text: bytes, status: int = 200) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/metrics" else 404)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One hook plugin besides the built-in exporter."""
    entry = EntryPoint("faulty", f"{__name__}:FAULTY", ENTRY_POINT_GROUP)
    monkeypatch.setattr(
        "vllm_omni_metrics_plugin.hooks.manager.entry_points", lambda group: [entry]
    )


FAULTY = Faulty()


def rows(text: str) -> dict[tuple[str, str], list[str]]:
    """What is said about each hook and plugin."""
    lines = [line.split(None, 5) for line in text.split("\n\n")[0].splitlines()[1:]]
    return {(line[0], line[1]): line[2:] for line in lines}


@pytest.mark.usefixtures("installed")
def test_every_hook_is_listed_with_those_who_would_be_called(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "DEFAULT_URL", "http://127.0.0.1:1")
    assert cli.main(["hooks"]) == 0
    out = capsys.readouterr().out
    listed = rows(out)
    assert {hook for hook, _ in listed} == set(EVENTS)
    assert listed["omni_request_arrived", "faulty"] == ["-", "-", "-", "installed"]
    assert listed["omni_request_arrived", "prometheus"] == ["-", "-", "-", "installed"]
    assert listed["omni_engine_stats", "-"] == ["-", "-", "-", "nobody listens"]
    assert "does not answer" in out
    assert "--url" in out


@pytest.mark.usefixtures("installed")
def test_operators_choice_of_plugins_is_what_is_listed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_OMNI_METRICS_HOOKS", "-faulty,-prometheus")
    monkeypatch.setattr(cli, "DEFAULT_URL", "http://127.0.0.1:1")
    cli.main(["hooks"])
    assert {plugin for _, plugin in rows(capsys.readouterr().out)} == {"-"}


@pytest.mark.usefixtures("installed")
def test_calls_errors_and_states_are_the_servers(
    exposed: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    plugins.register(FAULTY, "faulty")
    try:
        exposed.join()
        for _ in range(12):
            plugins.hooks.omni_request_arrived(make(RequestArrived))
        text = generate_latest(exposed.registry)
    finally:
        plugins.unregister(FAULTY)
    with serving(text) as url:
        assert cli.main(["hooks", "--url", f"{url}/"]) == 0
    listed = rows(capsys.readouterr().out)
    assert listed["omni_request_arrived", "faulty"] == [
        *("10", "10", "0"),
        "switched off or unregistered",
    ]
    assert listed["omni_request_arrived", "prometheus"] == ["12", "0", "0", "listening"]


@pytest.mark.parametrize("text", [b"", b"# HELP up -\n# TYPE up gauge\nup 1\n"])
def test_server_without_the_plugin_is_told_apart_from_no_server(
    capsys: pytest.CaptureFixture[str], text: bytes
) -> None:
    with serving(text) as url:
        assert cli.main(["hooks", "--url", url]) == 1
    assert "is VLLM_OMNI_METRICS=1 set there?" in capsys.readouterr().out


def test_address_that_was_asked_for_and_does_not_answer_is_a_failure(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for url in ("http://127.0.0.1:1", "nonsense"):
        assert cli.main(["hooks", "--url", url]) == 1
        assert f"{url}/metrics does not answer" in capsys.readouterr().out


def test_command_without_a_word_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main([])
    assert "hooks" in capsys.readouterr().err

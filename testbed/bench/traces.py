"""What traces cost a speech server that streams: of all requests, and of one in a hundred."""

from __future__ import annotations

import statistics
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from testbed.bench import Figure, servers
from testbed.bench.servers import Kind
from testbed.bench.speech import ask
from vllm_omni_metrics_plugin.tables import aligned

#: Streams of each server; the few of them that a hundredth are may be none.
ROUNDS = 100
_CPU = "traces_cpu"


def figures(rounds: int = ROUNDS) -> list[Figure]:
    collector = ThreadingHTTPServer(("127.0.0.1", 0), _Taking)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{collector.server_port}"
        measured = servers.measure("tts", _kinds(url), ask, _CPU, rounds)[_CPU]
    finally:
        collector.shutdown()
        collector.server_close()
    off = measured["off"]
    without = statistics.mean(off)
    how = f"{rounds} streams of each of four servers, one by one; {1000 * without:.4g} ms without"
    return [
        (f"{_CPU}_all_vs_off", measured["all"][0] / without, "-", how),
        (f"{_CPU}_hundredth_vs_off", measured["hundredth"][0] / without, "-", how),
        (f"{_CPU}_off_vs_off", off[0] / off[1], "-", "two servers without traces: chance"),
    ]


def _kinds(collector: str) -> dict[str, Kind]:
    plain = {"VLLM_OMNI_METRICS": "1"}
    traced = {
        **plain,
        "VLLM_OMNI_METRICS_TRACES": "1",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector,
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
    }
    return {
        "off": Kind(2, env=plain),
        "all": Kind(1, env={**traced, "OTEL_TRACES_SAMPLER_ARG": "1"}),
        "hundredth": Kind(1, env={**traced, "OTEL_TRACES_SAMPLER_ARG": "0.01"}),
    }


class _Taking(BaseHTTPRequestHandler):
    """A collector that takes everything, and keeps nothing."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None: ...


if __name__ == "__main__":
    print(
        aligned(
            ("FIGURE", "VALUE", "BUDGET", "MEASURED"),
            [(name, f"{value:.3g}", budget, how) for name, value, budget, how in figures()],
            right=(1,),
        )
    )

"""``make serve``: one server in the foreground, until it is interrupted."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Mapping

from testbed.pipelines import PIPELINES
from testbed.server import PLUGIN_PREFIX, Server, ServerFailedError

_IMAGE = (
    "curl {url}/v1/images/generations -H 'content-type: application/json' \\\n"
    '  -d \'{{"prompt": "a red cube", "size": "128x128", "num_inference_steps": 4}}\''
)
_TRY = {
    "tts": (
        "curl {url}/v1/audio/speech -H 'content-type: application/json' -o speech.wav \\\n"
        '  -d \'{{"input": "hello", "voice": "vivian", "max_new_tokens": 40}}\''
    ),
    "omni": (
        "curl {url}/v1/chat/completions -H 'content-type: application/json' \\\n"
        '  -d \'{{"messages": [{{"role": "user", "content": "hello"}}], "max_tokens": 16,\n'
        '       "modalities": ["text", "audio"]}}\''
    ),
    "duplex": (
        ".venv/bin/python -m testbed.clients.sessions {url}\n"
        "  says something and counts what it hears"
    ),
    "llm": (
        "curl {url}/v1/completions -H 'content-type: application/json' \\\n"
        '  -d \'{{"prompt": "hello", "max_tokens": 8}}\''
    ),
    "image": _IMAGE,
    "bagel": _IMAGE,
    "writer": _IMAGE,
    "video": (
        "curl {url}/v1/videos/sync -o video.mp4 -F prompt='a red cube' \\\n"
        "  -F size=64x64 -F num_frames=9 -F fps=8 -F num_inference_steps=4"
    ),
}


def own_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The plugin's, which the servers of tests do without, whatever shell they are started from."""
    return {name: environ[name] for name in environ if name.startswith(PLUGIN_PREFIX)}


def main() -> int:
    parser = argparse.ArgumentParser(prog="make serve")
    parser.add_argument("--pipeline", choices=sorted(PIPELINES), default="tts")
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--port", type=int, default=8091)
    parser.add_argument("--metrics", default="1", help="value of VLLM_OMNI_METRICS")
    options = parser.parse_args()

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server = Server(
        options.pipeline,
        replicas=options.replicas,
        port=options.port,
        env={**own_variables(os.environ), "VLLM_OMNI_METRICS": options.metrics},
    )
    try:
        start_visibly(server)
        print(f"\nready: {server.url}   metrics: {server.url}/metrics   log: {server.log_path}")
        print(_TRY[options.pipeline].format(url=server.url))
        print("Ctrl-C ends it", flush=True)
        while server.is_running():
            time.sleep(0.5)
        print(f"the server ended by itself\n{server.log_tail()}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopping", flush=True)
        return 0
    except (ServerFailedError, ValueError) as failure:
        print(failure, file=sys.stderr)
        return 1
    finally:
        # A second Ctrl-C must not leave half of the processes behind.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        server.stop()


def start_visibly(server: Server) -> None:
    """Start and show that it is under way; raises :class:`ServerFailedError`."""
    print(f"starting {server.pipeline.name} on port {server.port} ", end="", flush=True)
    dots = 0

    def waiting(seconds: float) -> None:
        nonlocal dots
        if seconds > dots:
            dots += 1
            print(".", end="", flush=True)

    server.start(waiting=waiting)
    print(f" up after {server.startup_seconds:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""Whether there is somebody to send to, and something to send with, by the standard variables."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Literal

Signal = Literal["TRACES", "METRICS"]

PROTOCOLS = {"http/protobuf": "http", "grpc": "grpc"}
_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_DISABLED = "OTEL_SDK_DISABLED"
_PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"


def protocol(environ: Mapping[str, str], signal: Signal) -> str:
    """As the standard variables name it; ``http/protobuf`` unless they do."""
    own = f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL"
    return environ.get(own) or environ.get(_PROTOCOL) or "http/protobuf"


def refusal(environ: Mapping[str, str], signal: Signal) -> str | None:
    """Why nothing can be sent, in words that name the variable and its value; None if it can."""
    if environ.get(_DISABLED, "").strip().lower() == "true":
        return f"{_DISABLED}={environ[_DISABLED]!r} switches the SDK off"
    own = f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"
    if not environ.get(own) and not environ.get(_ENDPOINT):
        said = environ.get(own, environ.get(_ENDPOINT))
        name = own if own in environ else _ENDPOINT
        return f"{name} is not set" if said is None else f"{name}={said!r} names no endpoint"
    asked = protocol(environ, signal)
    if asked not in PROTOCOLS:
        return f"the OTLP protocol {asked!r} is none of {', '.join(PROTOCOLS)}"
    module = f"opentelemetry.exporter.otlp.proto.{PROTOCOLS[asked]}"
    if not (_is_there("opentelemetry.sdk") and _is_there(module)):
        return (
            f"opentelemetry-sdk or opentelemetry-exporter-otlp-proto-{PROTOCOLS[asked]} is not "
            "installed (pip install 'vllm-omni-metrics-plugin[otel]' has them)"
        )
    return None


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False

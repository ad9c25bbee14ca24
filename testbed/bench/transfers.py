"""What watching the connectors costs in a stage engine's process."""

from __future__ import annotations

from typing import Any

from testbed.bench import Figure, SideBySide
from vllm_omni_metrics_plugin.channel.endpoint import private_endpoint
from vllm_omni_metrics_plugin.channel.sender import Sender
from vllm_omni_metrics_plugin.patches import connectors


class Connector:
    """Has nothing to give, and takes everything, at no cost of its own."""

    def put(self, from_stage: str, to_stage: str, put_key: str, data: Any) -> Any:
        return True, 298, None

    def get(self, from_stage: str, to_stage: str, get_key: str, metadata: Any = None) -> Any:
        return None

    def get_with_deadline(self, *arguments: Any, **kwargs: Any) -> Any:
        return None


class Bare(Connector):
    put = Connector.put
    get = Connector.get


def figures(side_by_side: SideBySide) -> list[Figure]:
    bare, watched = Bare(), Connector()
    sender = Sender(private_endpoint())
    connectors._wrap_class(Connector, sender.send, connectors._Failures())
    key = "speech-0123456789abcdef-01234567_0_17"
    one, other = side_by_side(
        lambda: watched.get("0", "1", key), lambda: bare.get("0", "1", key), 20_000
    )
    # Few enough for the queue: what is dropped would cost less.
    hop, put = side_by_side(
        lambda: watched.put("0", "1", key, None), lambda: bare.put("0", "1", key, None), 500
    )
    sender.close(0.1)
    return [
        ("poll_empty_ns", 1e9 * (one - other), "< 1000", "a get that gets nothing, less the call"),
        ("hop_us", 1e6 * (hop - put), "-", "a put that is measured and sent on, less the call"),
    ]

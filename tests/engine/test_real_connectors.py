"""The engine's own factory and shared-memory connector under our seam: a payload is seen once."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_omni_metrics_plugin.hooks import TransferReceived, TransferSent
from vllm_omni_metrics_plugin.patches import connectors
from vllm_omni_metrics_plugin.patches.state import EngineState


@pytest.fixture
def connector(seams: Any, state: EngineState, monkeypatch: pytest.MonkeyPatch) -> Any:
    from vllm_omni.distributed.omni_connectors.factory import OmniConnectorFactory
    from vllm_omni.distributed.omni_connectors.utils.config import ConnectorSpec

    monkeypatch.setattr(connectors, "own_replica", lambda: 2)
    spec = ConnectorSpec(name="SharedMemoryConnector", extra={"device": "cpu"})
    return OmniConnectorFactory.create_connector(spec)


def test_payload_that_is_put_and_got_is_seen_with_its_size_and_replica(
    connector: Any, recorder: Any
) -> None:
    key = "speech-12345678_0_0"
    assert connector.get("0", "1", key) is None, "polled before it is there"
    ok, size, metadata = connector.put("0", "1", key, {"codes": list(range(100))})
    assert ok
    payload, got = connector.get("0", "1", key, metadata)
    assert payload == {"codes": list(range(100))}
    sent, received = recorder.only(TransferSent), recorder.only(TransferReceived)
    assert (sent.size_bytes, received.size_bytes) == (size, got)
    assert size == got > 100
    for event in (sent, received):
        assert (event.from_stage, event.to_stage, event.key) == (0, 1, key)
        assert event.connector == "SharedMemoryConnector"
    assert (sent.from_replica, received.to_replica) == (2, 2)
    assert received.received_at >= sent.sent_at

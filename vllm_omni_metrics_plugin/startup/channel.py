"""Which end of the event channel this process holds."""

from __future__ import annotations

import atexit
import multiprocessing
import os
from multiprocessing.util import Finalize

from vllm_omni_metrics_plugin import api_servers, internal_errors
from vllm_omni_metrics_plugin.channel.endpoint import Endpoint, private_endpoint
from vllm_omni_metrics_plugin.channel.listener_lock import ListenerLock
from vllm_omni_metrics_plugin.channel.receiver import Receiver
from vllm_omni_metrics_plugin.channel.sender import Sender
from vllm_omni_metrics_plugin.hooks.events import Role
from vllm_omni_metrics_plugin.patches.state import EngineState
from vllm_omni_metrics_plugin.settings import Settings

#: How a server tells its stage engines' processes where its private socket is.
_INHERITED = "_OMNI_METRICS_CHANNEL"
#: Beside the numbers of several API servers: the lock of the one that listens on the channel.
_LOCK = "omni-metrics-listener.lock"


def open_channel(settings: Settings, role: Role, state: EngineState) -> None:
    """The server listens for events once it builds an engine; everybody else sends to it."""
    endpoint = _endpoint(settings, role)
    if role == "server":
        assert endpoint is not None
        _listen(endpoint, state)
    elif endpoint is None:
        state.report = None
    else:
        _send(endpoint, state)


def _endpoint(settings: Settings, role: Role) -> Endpoint | None:
    """None for a process that has no server to send to."""
    if settings.channel is not None:
        return Endpoint(settings.channel, settings.channel_key)
    inherited = os.environ.get(_INHERITED)
    if inherited and multiprocessing.parent_process() is not None:
        return Endpoint(inherited, private=True)
    if role != "server":
        return None
    endpoint = private_endpoint()
    os.environ[_INHERITED] = endpoint.address
    return endpoint


def _send(endpoint: Endpoint, state: EngineState) -> None:
    sender = Sender(endpoint)
    state.report = sender.send
    internal_errors.errors.added = sender.send_errors
    # Children of multiprocessing come to an end by one of these, depending on how they began.
    Finalize(None, sender.close, exitpriority=100)
    atexit.register(sender.close)


def _listen(endpoint: Endpoint, state: EngineState) -> None:
    transfers = state.transfers
    receiver = Receiver(endpoint, state.hooks, transfers.report, transfers.forget_outdated)
    lock = None
    if api_servers.is_one_of_several() and api_servers.is_on(os.environ):
        lock = ListenerLock(api_servers.folder(os.environ) / _LOCK, receiver.start)
    state.before_engine.append(receiver.start if lock is None else lock.begin)

    def close() -> None:
        if lock is not None:
            lock.stop_waiting()
        receiver.close()
        transfers.forget_all()
        if lock is not None:
            lock.release()

    atexit.register(close)

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
    """The server listens for events once it has an engine; everybody else sends to it."""
    if role == "server":
        _Listening(settings, state)
        return
    endpoint = _server_endpoint(settings, role)
    if endpoint is None:
        state.report = None
    else:
        _send(endpoint, state)


def _server_endpoint(settings: Settings, role: Role) -> Endpoint | None:
    """Where the server of this process listens; None where it has none to send to.

    A server in a script that another server's child has started inherits what is not meant for it.
    """
    if settings.channel is not None:
        return Endpoint(settings.channel, settings.channel_key)
    inherited = os.environ.get(_INHERITED)
    if inherited and (role != "server" or multiprocessing.parent_process() is not None):
        return Endpoint(inherited, private=True)
    return None


def _send(endpoint: Endpoint, state: EngineState) -> None:
    sender = Sender(endpoint)
    state.report = sender.send
    internal_errors.errors.added = sender.send_errors
    # Children of multiprocessing come to an end by one of these, depending on how they began.
    Finalize(None, sender.close, exitpriority=100)
    atexit.register(sender.close)


class _Listening:
    """The server's end.

    Its address is known before an engine is built, whose processes inherit it. Nothing is opened
    until the engine is there: what the engine forks would keep the socket, and outlive the server.
    """

    def __init__(self, settings: Settings, state: EngineState) -> None:
        self._settings = settings
        self._state = state
        self._lock: ListenerLock | None = None
        self._choose()
        state.before_engine.append(self._choose_in_child)
        state.after_engine.append(self._open)
        atexit.register(self._close)

    def _choose_in_child(self) -> None:
        # A child of a fork that builds an engine is another server than its parent.
        if self._process != os.getpid():
            self._choose()

    def _choose(self) -> None:
        self._process = os.getpid()
        endpoint = None
        if self._settings.channel is not None or api_servers.is_one_of_several():
            endpoint = _server_endpoint(self._settings, "server")
        if endpoint is None:
            # What another server says in its own children is not for this one.
            endpoint = private_endpoint()
            os.environ[_INHERITED] = endpoint.address
        state = self._state
        self._receiver = Receiver(endpoint, state.hooks, state.take, state.forget_outdated)
        if api_servers.is_one_of_several() and api_servers.is_on(os.environ):
            folder = api_servers.folder(os.environ)
            self._lock = ListenerLock(folder / _LOCK, self._receiver.start)

    def _open(self) -> None:
        if self._lock is None:
            self._receiver.start()
        else:
            self._lock.begin()

    def _close(self) -> None:
        if self._lock is not None:
            self._lock.stop_waiting()
        self._receiver.close()
        self._state.transfers.forget_all()
        if self._lock is not None:
            self._lock.release()

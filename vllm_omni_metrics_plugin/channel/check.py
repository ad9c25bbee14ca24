"""Whether a server could listen at an endpoint, without disturbing one that does."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

import zmq
import zmq.auth

from vllm_omni_metrics_plugin.channel.endpoint import (
    Endpoint,
    EndpointInUseError,
    is_listening,
)


@dataclass(frozen=True)
class Problem:
    """What would keep a server from listening at an endpoint."""

    text: str
    #: It is none on a host of stage engines, which only send there.
    server_only: bool = False


def problem_with(endpoint: Endpoint) -> Problem | None:
    """What would keep a server from listening there; None if nothing is known to.

    A private socket is made and removed and a port is taken for a moment; the path of a named
    socket is only looked at.
    """
    try:
        if endpoint.key_file is not None:
            _check_key(endpoint.key_file)
        if endpoint.private or endpoint.path is None:
            _bind(endpoint)
        else:
            _look_at(endpoint, endpoint.path)
    except EndpointInUseError:
        return Problem("another server listens there; a new one waits until that has ended")
    except OSError as error:
        return Problem(str(error), server_only=error.errno == errno.EADDRNOTAVAIL)
    except ValueError as error:
        return Problem(str(error))
    return None


def _bind(endpoint: Endpoint) -> None:
    try:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    except zmq.ZMQError as error:
        raise OSError(error.errno, error.strerror) from error
    try:
        with context.socket(zmq.PULL) as socket:
            socket.linger = 0
            endpoint.bind(socket)
        folder = endpoint.path.parent if endpoint.path is not None else None
        if folder is not None and folder.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise OSError(f"others may open {folder}")
    except zmq.ZMQError as error:
        raise OSError(error.errno, error.strerror) from error
    finally:
        context.destroy(linger=0)
        endpoint.remove()


def _look_at(endpoint: Endpoint, path: Path) -> None:
    if not path.parent.is_dir():
        raise OSError(f"there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OSError(f"{path.parent} cannot be written to")
    endpoint.check_path()
    if is_listening(path):
        raise EndpointInUseError


def _check_key(key_file: str) -> None:
    try:
        _, secret = zmq.auth.load_certificate(key_file)
    except (OSError, ValueError) as error:
        raise ValueError(f"{key_file} is no key ({error})") from None
    if secret is None:
        raise ValueError(f"{key_file} has no secret key in it; name the *.key_secret")

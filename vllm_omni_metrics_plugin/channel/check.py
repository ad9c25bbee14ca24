"""Whether a server could listen at an endpoint, without disturbing one that does."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import zmq
import zmq.auth

from vllm_omni_metrics_plugin.channel.endpoint import Endpoint


def problem_with(endpoint: Endpoint) -> str | None:
    """What would keep a server from listening there; None if nothing is known to.

    A private socket is made and removed; a named one may be in use, so only its place is looked at.
    """
    if endpoint.key_file is not None:
        problem = _problem_with_key(endpoint.key_file)
        if problem is not None:
            return problem
    if endpoint.private:
        return _problem_with_private(endpoint)
    if endpoint.path is not None:
        return _problem_with_folder(endpoint.path.parent)
    return None


def _problem_with_private(endpoint: Endpoint) -> str | None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.PULL)
    socket.linger = 0
    try:
        endpoint.bind(socket)
        assert endpoint.path is not None
        if endpoint.path.parent.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            return f"others may open {endpoint.path.parent}"
    except OSError as error:
        return str(error)
    finally:
        context.destroy(linger=0)
        endpoint.remove()
    return None


def _problem_with_folder(folder: Path) -> str | None:
    if not folder.is_dir():
        return f"there is no folder {folder}"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"{folder} cannot be written to"
    return None


def _problem_with_key(key_file: str) -> str | None:
    try:
        _, secret = zmq.auth.load_certificate(key_file)
    except (OSError, ValueError) as error:
        return f"{key_file} is no key ({error})"
    if secret is None:
        return f"{key_file} has no secret key in it; name the *.key_secret"
    if os.stat(key_file).st_mode & (stat.S_IRGRP | stat.S_IROTH):
        return f"others may read {key_file}; make it private with chmod 600"
    return None

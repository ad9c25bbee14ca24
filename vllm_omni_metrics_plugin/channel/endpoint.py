"""Where the channel is: a private socket of the server's user, or an address with a key."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import stat
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import zmq
import zmq.auth

_PREFIX = "vllm-omni-metrics-"
_SOCKET = "events"
#: A folder without anybody listening is left over from a server that was killed, unless it is so
#: new that its server may just be about to listen.
_STALE_SECONDS = 60.0


class EndpointInUseError(OSError):
    """Another server listens there."""


@dataclass(frozen=True)
class Endpoint:
    """``address`` is ``ipc:///path`` or ``tcp://host:port``; the latter has a ``key_file``."""

    address: str
    key_file: str | None = None
    #: The socket's folder belongs to the channel and goes with it.
    private: bool = False

    @property
    def path(self) -> Path | None:
        """The socket's file."""
        return Path(self.address[len("ipc://") :]) if self.address.startswith("ipc://") else None

    def connect(self, pushing: zmq.Socket[bytes]) -> None:
        """Send there, also when nobody listens yet. Raises OSError or ValueError for a bad key."""
        if self.key_file is not None:
            public, secret = zmq.auth.load_certificate(self.key_file)
            pushing.curve_publickey, pushing.curve_secretkey = public, secret or b""
            pushing.curve_serverkey = public
        host = self.address.replace("tcp://*:", "tcp://127.0.0.1:")
        pushing.connect(host.replace("tcp://0.0.0.0:", "tcp://127.0.0.1:"))

    def bind(self, pulling: zmq.Socket[bytes]) -> None:
        """Listen there. Raises OSError (zmq.ZMQError is one), ValueError for a bad key."""
        if self.key_file is not None:
            public, secret = zmq.auth.load_certificate(self.key_file)
            pulling.curve_publickey, pulling.curve_secretkey = public, secret or b""
            pulling.curve_server = True
        if self.path is None:
            pulling.bind(self.address)
            return
        if self.private:
            _sweep(self.path.parent.parent)
            _make_private(self.path.parent)
        if _is_listening(self.path):
            raise EndpointInUseError(f"another server listens at {self.address}")
        pulling.bind(self.address)
        self.path.chmod(stat.S_IRUSR | stat.S_IWUSR)

    def remove(self) -> None:
        """Remove the files of :meth:`bind`."""
        if self.path is None:
            return
        with contextlib.suppress(OSError):
            self.path.unlink()
        if self.private:
            with contextlib.suppress(OSError):
                self.path.parent.rmdir()


def private_endpoint() -> Endpoint:
    """A new address that no other server has; its files are made by :meth:`Endpoint.bind`."""
    folder = Path(tempfile.gettempdir()) / f"{_PREFIX}{os.getuid()}-{secrets.token_hex(8)}"
    return Endpoint(f"ipc://{folder / _SOCKET}", private=True)


def _make_private(folder: Path) -> None:
    """Raises FileExistsError where it is there already and not this user's alone."""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:  # another API server of this engine had it, and was killed
        about = folder.lstat()
        alone = not stat.S_IMODE(about.st_mode) & (stat.S_IRWXG | stat.S_IRWXO)
        if not (stat.S_ISDIR(about.st_mode) and about.st_uid == os.getuid() and alone):
            raise


def _is_listening(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def _sweep(parent: Path) -> None:
    """Remove what servers of this user left behind that had no chance to clean up."""
    for folder in parent.glob(f"{_PREFIX}{os.getuid()}-*"):
        with contextlib.suppress(OSError):
            about = folder.lstat()
            ours = stat.S_ISDIR(about.st_mode) and about.st_uid == os.getuid()
            old = time.time() - about.st_mtime > _STALE_SECONDS
            if ours and old and not _is_listening(folder / _SOCKET):
                shutil.rmtree(folder)

"""Where the channel is: a private socket of the server's user, or an address with a key."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import zmq
import zmq.auth

_PREFIX = "vllm-omni-metrics-"
_SOCKET = "events"
#: Where a socket always has room.
_SHORTEST = "/tmp"
#: A folder without anybody listening is left over from a server that was killed, unless it is so
#: new that its server may just be about to listen.
_STALE_SECONDS = 60.0


#: What a Unix socket's address has room for, in bytes.
_LONGEST_PATH = zmq.IPC_PATH_MAX_LEN


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
        host = self.address.replace("tcp://*:", "tcp://127.0.0.1:")
        with _as_os_errors():
            if self.key_file is not None:
                public, secret = zmq.auth.load_certificate(self.key_file)
                pushing.curve_publickey, pushing.curve_secretkey = public, secret or b""
                pushing.curve_serverkey = public
            pushing.connect(host.replace("tcp://0.0.0.0:", "tcp://127.0.0.1:"))

    def bind(self, pulling: zmq.Socket[bytes]) -> None:
        """Listen there.

        Raises OSError, :class:`EndpointInUseError` among them, and ValueError for a bad key.
        """
        with _as_os_errors():
            if self.key_file is not None:
                public, secret = zmq.auth.load_certificate(self.key_file)
                pulling.curve_publickey, pulling.curve_secretkey = public, secret or b""
                pulling.curve_server = True
            if self.path is None:
                self._bind_port(pulling)
            else:
                self._bind_path(pulling, self.path)

    def _bind_port(self, pulling: zmq.Socket[bytes]) -> None:
        # The transport would listen at what remains of the number.
        if not 0 < int(self.address.rpartition(":")[2]) <= 65535:
            raise OSError(f"{self.address} has no port")
        try:
            pulling.bind(self.address)
        except zmq.ZMQError as error:
            if error.errno == errno.ENODEV:
                raise OSError(f"there is no host of the name in {self.address}") from None
            raise

    def _bind_path(self, pulling: zmq.Socket[bytes], path: Path) -> None:
        self.check_path()
        if self.private:
            _sweep(path.parent.parent)
            _make_private(path.parent)
        if is_listening(path):
            raise EndpointInUseError(f"another server listens at {self.address}")
        pulling.bind(self.address)
        path.chmod(stat.S_IRUSR | stat.S_IWUSR)

    def check_path(self) -> None:
        """Raises OSError where no socket can be made, whoever listens."""
        if self.path is None:
            return
        if not _fits(self.path):
            raise OSError(f"{self.path} is longer than the {_LONGEST_PATH} bytes of a socket")
        # The transport removes whatever it finds in its place.
        if os.path.lexists(self.path) and not _is_socket(self.path):
            raise FileExistsError(f"{self.path} is there already, and no socket")

    def remove(self) -> None:
        """Remove the files of :meth:`bind`."""
        if self.path is None:
            return
        with contextlib.suppress(OSError):
            if _is_socket(self.path):
                self.path.unlink()
        if self.private:
            with contextlib.suppress(OSError):
                self.path.parent.rmdir()


def private_endpoint() -> Endpoint:
    """A new address that no other server has; its files are made by :meth:`Endpoint.bind`.

    In the folder for temporary files, or in a shorter one where a socket has no room there.
    """
    name = f"{_PREFIX}{os.getuid()}-{secrets.token_hex(8)}"
    paths = [folder / name / _SOCKET for folder in _folders()]
    path = next(filter(_fits, paths), paths[0])
    return Endpoint(f"ipc://{path}", private=True)


def _folders() -> Iterator[Path]:
    with contextlib.suppress(OSError):  # no folder for temporary files at all
        yield Path(tempfile.gettempdir())
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or _SHORTEST)
    if runtime.is_absolute() and _is_mine_alone(runtime):
        yield runtime
    yield Path(_SHORTEST)


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= _LONGEST_PATH


@contextlib.contextmanager
def _as_os_errors() -> Iterator[None]:
    """zmq's errors are no OSErrors, though they have such a number."""
    try:
        yield
    except zmq.ZMQError as error:
        kind = EndpointInUseError if error.errno == errno.EADDRINUSE else OSError
        raise kind(error.errno, error.strerror) from error


def _is_socket(path: Path) -> bool:
    return stat.S_ISSOCK(path.lstat().st_mode)


def _is_mine_alone(folder: Path) -> bool:
    """Whether it is a folder that nobody else can open."""
    try:
        about = folder.lstat()
    except OSError:
        return False
    alone = not stat.S_IMODE(about.st_mode) & (stat.S_IRWXG | stat.S_IRWXO)
    return stat.S_ISDIR(about.st_mode) and about.st_uid == os.getuid() and alone


def _make_private(folder: Path) -> None:
    """Raises FileExistsError where it is there already and not this user's alone."""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:  # another API server of this engine had it, and was killed
        if not _is_mine_alone(folder):
            raise


def is_listening(path: Path) -> bool:
    """Whether somebody takes what is sent to this socket."""
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
            if ours and old and not is_listening(folder / _SOCKET):
                shutil.rmtree(folder)

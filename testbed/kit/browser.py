"""A headless Chromium that takes pictures of pages: the machine's own, or npm's."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from websockets.sync.client import ClientConnection, connect

from testbed.kit import npm
from testbed.server import end_session, start_session

_INSTALLED = ("chromium", "chromium-browser", "google-chrome", "chromium-headless-shell")
_OPTIONS = (
    *("--headless=shell", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"),
    # It shows pages of ours alone, and containers have no name spaces to give.
    "--no-sandbox",
    "--remote-debugging-port=0",
)
#: Decompresses one file into another; Python has no Brotli of its own, and where there is npm
#: there is node.
_UNPACK = """
const [zlib, fs] = [require("zlib"), require("fs")];
const [from, to] = process.argv.slice(1);
fs.createReadStream(from).pipe(zlib.createBrotliDecompress()).pipe(fs.createWriteStream(to));
"""
_START_SECONDS = 60.0
_DRAW_SECONDS = 60.0
_POLL_SECONDS = 0.1


class BrowserError(Exception):
    """It did not come up, or a page was not drawn; the message has its words."""


class Browser:
    """Shows one page after the other; a context manager that ends it."""

    def __init__(self) -> None:
        """Raises :class:`testbed.kit.npm.UnavailableError`, and :class:`BrowserError`."""
        self._work = tempfile.TemporaryDirectory(prefix="testbed-browser-")
        folder = Path(self._work.name)
        program, libraries = _program()
        paths = os.pathsep.join(filter(None, (libraries, os.environ.get("LD_LIBRARY_PATH"))))
        # The locale C is none in which scripts can write numbers.
        ours = {"LD_LIBRARY_PATH": paths, "HOME": str(folder), "LC_ALL": "en_US.UTF-8"}
        environment = {**os.environ, **ours, "LANGUAGE": "en_US"}
        profile = folder / "profile"
        command = [program, *_OPTIONS, f"--user-data-dir={profile}", "about:blank"]
        log = folder / "log"
        self._process = start_session(command, environment, log)
        where = profile / "DevToolsActivePort"
        try:
            _wait(
                lambda: where.exists() and len(where.read_text().splitlines()) > 1,
                _START_SECONDS,
                lambda: f"the browser did not come up\n{log.read_text(errors='replace')[-1000:]}",
            )
        except BrowserError:
            self._end()
            raise
        port, path = where.read_text().split()
        self._socket: ClientConnection = connect(f"ws://127.0.0.1:{port}{path}", max_size=None)
        self._numbers = itertools.count(1)

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()
        self._end()

    def _end(self) -> None:
        end_session(self._process)
        self._work.cleanup()

    def picture(self, page: Path, width: int) -> bytes:
        """The whole of a page, so many pixels wide, as PNG, once its body is ``data-drawn``.

        Raises :class:`BrowserError` where it takes longer than a minute.
        """
        target = self._do("Target.createTarget", url="about:blank")["targetId"]
        attached = self._do("Target.attachToTarget", targetId=target, flatten=True)
        of = attached["sessionId"]
        self._resize(of, width, 1000)
        self._do("Page.navigate", of, url=page.as_uri())
        _wait(
            lambda: bool(self._value(of, "document.body?.dataset.drawn")),
            _DRAW_SECONDS,
            lambda: f"{page} was not drawn",
        )
        self._resize(of, width, int(self._value(of, "document.body.scrollHeight")))
        taken = self._do("Page.captureScreenshot", of, format="png")
        self._do("Target.closeTarget", targetId=target)
        return base64.b64decode(taken["data"])

    def _resize(self, of: str, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._do("Emulation.setDeviceMetricsOverride", of, **size)

    def _value(self, of: str, expression: str) -> Any:
        done = self._do("Runtime.evaluate", of, expression=expression, returnByValue=True)
        return done["result"].get("value")

    def _do(self, method: str, session: str | None = None, **parameters: Any) -> Any:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        self._socket.send(json.dumps({**message, **({"sessionId": session} if session else {})}))
        while True:
            answer = json.loads(self._socket.recv(_DRAW_SECONDS))
            if answer.get("id") == number:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']['message']}")
                return answer["result"]


def _program() -> tuple[str, str]:
    """The browser, and where its libraries are if it brings some."""
    for name in _INSTALLED:
        found = shutil.which(name)
        if found is not None:
            return found, ""
    folder = npm.CHROMIUM.fetched() / "bin"
    program = folder / "chromium"
    if not program.exists():
        _unpack(folder / "al2023.tar.br", folder / "al2023.tar")
        with tarfile.open(folder / "al2023.tar") as archive:
            archive.extractall(folder, filter="data")
        _unpack(folder / "chromium.br", folder / "chromium.new")
        (folder / "chromium.new").chmod(0o755)
        (folder / "chromium.new").rename(program)
    return str(program), str(folder / "lib")


def _unpack(packed: Path, unpacked: Path) -> None:
    node = shutil.which("node")
    if node is None:
        raise npm.UnavailableError("there is no node here, which unpacks the browser")
    done = subprocess.run(
        [node, "-e", _UNPACK, str(packed), str(unpacked)], capture_output=True, text=True
    )
    if done.returncode:
        raise npm.UnavailableError(f"{packed.name}: {done.stderr.strip()}")


def _wait(condition: Callable[[], bool], seconds: float, words: Callable[[], str]) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise BrowserError(words())
        time.sleep(_POLL_SECONDS)

"""Installation steps that are done once, resume where they were cut off, and show what they do."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_TICK_SECONDS = 0.2
_QUIET_LINE_SECONDS = 15.0
_TAIL_LINES = 15


class StepFailedError(Exception):
    """A step did not work; the message is for the person who called make."""


@dataclass(frozen=True)
class Step:
    """``inputs`` are files and texts; when one changes, the step is done again."""

    name: str
    title: str
    inputs: Sequence[Path | str]
    run: Callable[[Path], None]

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for item in self.inputs:
            digest.update(item.read_bytes() if isinstance(item, Path) else item.encode())
            digest.update(b"\0")
        return digest.hexdigest()


def do(steps: Sequence[Step], state: Path) -> None:
    """Do the steps that are not done yet; everything after a step that had to be done is done too.

    ``state`` holds a stamp and a log per step. Raises :class:`StepFailedError`.
    """
    state.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    done_before = True
    for number, step in enumerate(steps, 1):
        stamp = state / f"{step.name}.done"
        fingerprint = step.fingerprint()
        if done_before and stamp.exists() and stamp.read_text() == fingerprint:
            continue
        done_before = False
        stamp.unlink(missing_ok=True)
        print(f"[{number}/{len(steps)}] {step.title}", flush=True)
        step.run(state / f"{step.name}.log")
        stamp.write_text(fingerprint)
    if not done_before:
        print(f"installed in {time.monotonic() - began:.0f} s", flush=True)


@contextmanager
def only_one(lock: Path) -> Iterator[None]:
    """Wait until no other installation into the same place is under way."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another installation is under way; waiting for it", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def call(command: Iterable[str | Path], log: Path, *, environment: dict[str, str]) -> None:
    """Run a command into ``log``, showing its last line and the seconds while it runs.

    Raises :class:`StepFailedError` with the end of the log.
    """
    arguments = [str(part) for part in command]
    with log.open("ab") as sink:
        sink.write(f"$ {' '.join(arguments)}\n".encode())
        sink.flush()
        process = subprocess.Popen(
            arguments, stdout=sink, stderr=subprocess.STDOUT, env=environment
        )
        try:
            _watch(process, log)
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if process.returncode:
        tail = "\n".join(_lines(log)[-_TAIL_LINES:])
        raise StepFailedError(
            f"{tail}\nfailed: {' '.join(arguments[:4])} ...; the whole log: {log}"
        )


def works(command: Iterable[str | Path], *, environment: dict[str, str]) -> bool:
    """Whether a command succeeds; what it prints is thrown away."""
    result = subprocess.run(
        [str(part) for part in command], capture_output=True, env=environment, check=False
    )
    return result.returncode == 0


def _watch(process: subprocess.Popen[bytes], log: Path) -> None:
    began = told = time.monotonic()
    live = sys.stdout.isatty()
    while process.poll() is None:
        time.sleep(_TICK_SECONDS)
        now = time.monotonic()
        if live or now - told >= _QUIET_LINE_SECONDS:
            told = now
            last = (_lines(log) or [""])[-1].strip()
            text = f"      {now - began:4.0f} s  {last}"
            if live:
                width = os.get_terminal_size().columns - 1
                print(f"\r{text[:width]:<{width}}", end="", flush=True)
            else:
                print(text[:120], flush=True)
    if live:
        print("\r\033[K", end="", flush=True)


def _lines(log: Path) -> list[str]:
    with log.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 8192))
        return file.read().decode(errors="replace").splitlines()

"""A real Prometheus on loopback, from Debian's package: unpacked in the cache, not installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from testbed.paths import CACHE
from testbed.server import HOST, free_port, start_session

FOLDER = CACHE / "prometheus"
_PACKAGE = "prometheus"
_FETCH_SECONDS = 60.0
_START_SECONDS = 60.0
_STOP_SECONDS = 10.0
_ASK_SECONDS = 30.0
_POLL_SECONDS = 0.1
#: With which promtool ends when it can read a page and does not like it.
_FAULTS = 3


class UnavailableError(Exception):
    """There is no Prometheus to be had here; the message says why."""


class PrometheusFailedError(Exception):
    """It did not come up, or refused a question; the message has its own words."""


class Element(NamedTuple):
    """One element of an instant vector."""

    labels: dict[str, str]
    value: float
    #: Seconds since the epoch for which the value was computed.
    at: float


class Track(NamedTuple):
    """One element of a range: its values by seconds since the epoch, where it has one."""

    labels: dict[str, str]
    values: dict[float, float]


class Exemplar(NamedTuple):
    """What a bucket says of one of its samples."""

    series: dict[str, str]
    labels: dict[str, str]
    value: float


#: Why it could not be had before; asked again, a network that is not there would take its time.
_refusals: list[str] = []


def fetched() -> Path:
    """The folder of ``prometheus`` and ``promtool``, fetched once.

    Raises :class:`UnavailableError` where there is no apt, or no package for it.
    """
    if not (FOLDER / _PACKAGE).exists():
        if _refusals:
            raise UnavailableError(_refusals[0])
        try:
            _fetch()
        except UnavailableError as error:
            _refusals.append(f"Prometheus, Debian's package: {error}")
            raise UnavailableError(_refusals[0]) from None
    return FOLDER


def _fetch() -> None:
    for program in ("apt-get", "dpkg"):
        if shutil.which(program) is None:
            raise UnavailableError(f"there is no {program} here")
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as work:
        _download(Path(work))
        (package,) = Path(work).glob("*.deb")
        _run(["dpkg", "-x", str(package), "unpacked"], Path(work))
        # Whoever fetches it at the same time has the same.
        if not FOLDER.exists():
            (Path(work) / "unpacked" / "usr" / "bin").rename(FOLDER)


def _download(folder: Path) -> None:
    try:
        _run(["apt-get", "download", _PACKAGE], folder)
    except UnavailableError:
        # Images of containers have no lists of packages; these are nobody's but ours.
        lists = folder / "lists"
        (lists / "partial").mkdir(parents=True)
        ours = ["-o", f"Dir::State::lists={lists}", "-o", "APT::Sandbox::User="]
        _run(["apt-get", *ours, "update"], folder)
        _run(["apt-get", *ours, "download", _PACKAGE], folder)


def _run(command: Sequence[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_FETCH_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"{command[0]} took over {_FETCH_SECONDS:.0f} s") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise UnavailableError(f"{' '.join(command)}: {said[-1] if said else done.returncode}")


def faults(page: bytes) -> list[tuple[str, str]]:
    """What ``promtool check metrics`` finds wrong with a page in the text format: family and fault.

    Raises :class:`UnavailableError`, and :class:`PrometheusFailedError` for a page that cannot be
    read.
    """
    program = fetched() / "promtool"
    done = subprocess.run(
        [program, "check", "metrics"], input=page, capture_output=True, timeout=_ASK_SECONDS
    )
    said = done.stderr.decode(errors="replace")
    if done.returncode not in (0, _FAULTS):
        raise PrometheusFailedError(said)
    return [(family, fault) for family, _, fault in (s.partition(" ") for s in said.splitlines())]


class Prometheus:
    """One Prometheus that scrapes every second, from :meth:`start` to :meth:`stop`."""

    def __init__(
        self, folder: Path, *, features: Sequence[str] = (), rules: Sequence[Path] = ()
    ) -> None:
        """It keeps its data in ``folder``; ``features`` are those of ``--enable-feature``.

        ``rules`` are files of recording rules and alerts. Raises :class:`UnavailableError`.
        """
        self._programs = fetched()
        self._folder = folder
        self._features = tuple(features)
        self._rules = [str(path) for path in rules]
        self._targets: list[dict[str, Any]] = []
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.url = f"http://{HOST}:{self.port}"

    def __enter__(self) -> Prometheus:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Return when it answers; raises :class:`PrometheusFailedError`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        config = self._folder / "prometheus.yml"
        # JSON is YAML as well.
        discovery = {"files": [str(self._targets_path)]}
        job = {"job_name": "testbed", "file_sd_configs": [discovery]}
        every = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        content = {"global": every, "rule_files": self._rules, "scrape_configs": [job]}
        config.write_text(json.dumps(content))
        self._write_targets()
        options = {
            "config.file": config,
            "storage.tsdb.path": self._folder / "data",
            "web.listen-address": f"{HOST}:{self.port}",
            "log.level": "warn",
            **({"enable-feature": ",".join(self._features)} if self._features else {}),
        }
        log = self._folder / "prometheus.log"
        command = [str(self._programs / _PACKAGE), *(f"--{k}={v}" for k, v in options.items())]
        self._process = start_session(command, {**os.environ, "GOMAXPROCS": "1"}, log)
        deadline = time.monotonic() + _START_SECONDS
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise PrometheusFailedError(log.read_text(errors="replace")[-2000:])
            time.sleep(_POLL_SECONDS)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def watch(self, url: str, **labels: str) -> None:
        """Scrape the server at ``url`` from now on, as a target with these labels as well."""
        self._targets.append({"targets": [url.removeprefix("http://")], "labels": labels})
        self._write_targets()

    def forget(self, url: str) -> None:
        """Scrape the server at ``url`` no more."""
        host = url.removeprefix("http://")
        self._targets = [target for target in self._targets if target["targets"] != [host]]
        self._write_targets()

    def ask(self, query: str, at: float | None = None) -> list[Element]:
        """The instant vector that ``query`` is now, or was ``at`` seconds since the epoch.

        A scalar is one element without labels. Raises :class:`PrometheusFailedError`.
        """
        time_of = {} if at is None else {"time": str(at)}
        data = self._get("query", {"query": query, **time_of})
        if data["resultType"] == "scalar":
            return [_element({}, data["result"])]
        return [_element(found["metric"], found["value"]) for found in data["result"]]

    def ask_range(self, query: str, start: float, end: float, step: float) -> list[Track]:
        """What ``query`` was at ``start`` and each ``step`` after it until ``end``, in seconds.

        Raises :class:`PrometheusFailedError`.
        """
        times = {"start": str(start), "end": str(end), "step": str(step)}
        return [
            Track(found["metric"], {float(at): float(value) for at, value in found["values"]})
            for found in self._get("query_range", {"query": query, **times})["result"]
        ]

    def series(self, selector: str) -> list[dict[str, str]]:
        """The labels of each series that ``selector`` finds, ``__name__`` among them."""
        found: list[dict[str, str]] = self._get("series", {"match[]": selector})
        return found

    def exemplars(self, selector: str, since: float) -> list[Exemplar]:
        """Those that it has stored of the series that ``selector`` finds, since then.

        ``since`` in seconds since the epoch. It keeps none without the feature
        ``exemplar-storage``.
        """
        # An exemplar may have a time of the near future, where clocks are read one after another.
        times = {"start": str(since), "end": str(time.time() + 60.0)}
        return [
            Exemplar(series["seriesLabels"], one["labels"], float(one["value"]))
            for series in self._get("query_exemplars", {"query": selector, **times})
            for one in series["exemplars"]
        ]

    def types(self, target: str) -> dict[str, str]:
        """The type that it stored of each family of a target, by name; ``target`` selects it."""
        found = self._get("targets/metadata", {"match_target": target})
        return {family["metric"]: family["type"] for family in found}

    def _get(self, what: str, parameters: dict[str, str]) -> Any:
        address = f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(address, timeout=_ASK_SECONDS) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise PrometheusFailedError(error.read().decode(errors="replace")) from None

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=_ASK_SECONDS):
                return True
        except OSError:
            return False

    @property
    def _targets_path(self) -> Path:
        return self._folder / "targets.json"

    def _write_targets(self) -> None:
        """In one go: Prometheus reads the file as soon as it changes."""
        written = self._targets_path.with_suffix(".new")
        written.write_text(json.dumps(self._targets))
        written.rename(self._targets_path)


def _element(labels: dict[str, str], value: tuple[float, str]) -> Element:
    return Element(labels, float(value[1]), float(value[0]))

"""A real server of the test bed: starting it, finding its processes, ending it with all of them."""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
import yaml

from testbed.paths import CACHE
from testbed.pipelines import PIPELINES, check_replicas, deployment

HOST = "127.0.0.1"

#: Each of these is needed, or makes a start or a first request much slower when it is missing.
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DISABLE_LOG_LOGO": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # The worker lives in its stage's process, as it does for one GPU.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # Compiling for CPU makes the first request take half a minute.
    "TORCH_COMPILE_DISABLE": "1",
    "TORCHDYNAMO_DISABLE": "1",
    # Several engines share few cores.
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    # Of a plain vLLM server; the deploy files say it for the stages.
    "VLLM_CPU_KVCACHE_SPACE": "1",
}
PLUGIN_PREFIX = "VLLM_OMNI_METRICS"
_POLL_SECONDS = 0.2
#: The engine ends its stages one after the other, and gives each five seconds.
_GRACE_SECONDS = 20.0
_GRACE_SECONDS_PER_PROCESS = 6.0
_API_PROCESS = re.compile(r"APIServer_(\d+)")
_STAGE_PROCESS = re.compile(r"stage(\d+)_replica(\d+)", re.IGNORECASE)
_PR_SET_PDEATHSIG = 1


class ServerFailedError(Exception):
    """The server did not come up; the message ends with the end of its log."""


class Server:
    """One server on loopback, from :meth:`start` to :meth:`stop`; a context manager for both."""

    def __init__(
        self,
        pipeline: str = "tts",
        *,
        replicas: int = 1,
        others: int = 1,
        port: int | None = None,
        env: Mapping[str, str] | None = None,
        args: Sequence[str] = (),
        async_chunk: bool = True,
        deploy: Callable[[dict[str, Any]], None] | None = None,
        log_path: Path | None = None,
    ) -> None:
        """``env`` is added to this process's environment without the plugin's own variables.

        There are ``replicas`` of the stage that is usually replicated, and ``others`` of the
        others. ``async_chunk=False`` hands whole outputs from stage to stage. ``deploy`` changes
        the content of the deploy file. ``port=None`` takes a free one. Raises KeyError for an
        unknown pipeline.
        """
        self.pipeline = PIPELINES[pipeline]
        self.port = port or free_port()
        self.url = f"http://{HOST}:{self.port}"
        self.log_path = log_path or _log_path(pipeline, self.port)
        self.startup_seconds = 0.0
        self._replicas = replicas
        self._others = others
        self._async_chunk = async_chunk
        self._deploy = deploy
        self._arguments = tuple(args)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(PLUGIN_PREFIX)}
        self.environment = {**inherited, **_ENVIRONMENT, **(env or {})}
        if self.pipeline.stand_ins is not None:
            paths = [str(self.pipeline.stand_ins), self.environment.get("PYTHONPATH")]
            self.environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Of the API server; it leads a session that all its children belong to."""
        assert self._process is not None, "the server was not started"
        return self._process.pid

    @property
    def model(self) -> str:
        """The name under which the server serves its model, and the ``model_name`` label."""
        return f"tiny-{self.pipeline.model.name}"

    def start(self, timeout: float = 480.0, waiting: Callable[[float], None] | None = None) -> None:
        """Return when the server answers; raises :class:`ServerFailedError`.

        ``waiting`` is called now and then meanwhile, with the seconds so far.
        """
        began = time.monotonic()
        self._launch()
        while not self.is_healthy():
            time.sleep(_POLL_SECONDS)
            if waiting is not None:
                waiting(time.monotonic() - began)
            if not self.is_running():
                raise ServerFailedError(f"the server died while starting\n{self.log_tail()}")
            if time.monotonic() - began > timeout:
                self.stop()
                raise ServerFailedError(
                    f"the server was not up in {timeout:.0f} s\n{self.log_tail()}"
                )
        self.startup_seconds = time.monotonic() - began

    def _launch(self) -> None:
        self._process = start_session(self._command(), self.environment, self.log_path)

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def is_healthy(self) -> bool:
        """Whether ``/health`` answers 200 now."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=5)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def stop(self) -> None:
        """Interrupt the server, then kill what is left of its session."""
        if self._process is not None:
            end_session(self._process)
            self._deploy_path().unlink(missing_ok=True)
            self._process = None

    def stage_processes(self) -> dict[tuple[int, int], int]:
        """Process ids of the running stage engines, by (stage, replica)."""
        return {(int(m[1]), int(m[2])): pid for m, pid in self._named(_STAGE_PROCESS)}

    def api_processes(self) -> dict[int, int]:
        """Process ids of several API servers, by number; none where the server is a single one."""
        return {int(match[1]): pid for match, pid in self._named(_API_PROCESS)}

    def _named(self, name: re.Pattern[str]) -> Iterator[tuple[re.Match[str], int]]:
        for process in _session(self.pid):
            try:
                match = name.search(" ".join(process.cmdline()))
            except psutil.Error:
                continue
            if match is not None:
                yield match, process.pid

    def cpu_seconds(self) -> float:
        """Processor time that all its processes have used, those that ended among them."""
        return session_cpu_seconds(self.pid)

    def kill_replica(self, stage: int, replica: int) -> None:
        """``kill -9`` of exactly one stage engine; raises KeyError if it does not run."""
        os.kill(self.stage_processes()[stage, replica], signal.SIGKILL)

    def log_tail(self, lines: int = 25) -> str:
        text = self.log_path.read_text(errors="replace").splitlines()
        return "\n".join([*text[-lines:], f"(log: {self.log_path})"])

    def _command(self) -> list[str]:
        model = str(self.pipeline.model)
        where = ["--host", HOST, "--port", str(self.port), "--served-model-name", self.model]
        arguments = [*where, *self.pipeline.arguments, *self._arguments]
        if not self.pipeline.omni:
            # Not the command `vllm`: it asks for a distribution of that name, and this one is
            # vllm-cpu.
            module = [binary("python"), "-m", "vllm.entrypoints.openai.api_server"]
            return [*module, "--model", model, *arguments]
        serve = [binary("vllm-omni"), "serve", model, "--omni"]
        if self.pipeline.deploy is None:
            check_replicas(self.pipeline, self._replicas)
            return [*serve, *arguments]
        content = deployment(self.pipeline, self._replicas, self._async_chunk, others=self._others)
        if self._deploy is not None:
            self._deploy(content)
        self._deploy_path().parent.mkdir(parents=True, exist_ok=True)
        self._deploy_path().write_text(yaml.safe_dump(content))
        return [*serve, "--deploy-config", str(self._deploy_path()), *arguments]

    def _deploy_path(self) -> Path:
        return CACHE / "deploy" / f"{self.pipeline.name}-{self.port}.yaml"


def start_session(
    command: Sequence[str], environment: Mapping[str, str], log_path: Path
) -> subprocess.Popen[bytes]:
    """Start a process that leads a session of its own and ends when this process does."""
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("wb") as log:
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_in_child,
        )


def end_session(leader: subprocess.Popen[bytes]) -> None:
    """Interrupt the leader of a session, give it time, then kill what is left of them."""
    members = _session(leader.pid)
    if leader.poll() is None:
        leader.send_signal(signal.SIGINT)
        try:
            leader.wait(_GRACE_SECONDS + _GRACE_SECONDS_PER_PROCESS * len(members))
        except subprocess.TimeoutExpired:
            leader.kill()
            leader.wait()
    for straggler in members:
        with contextlib.suppress(psutil.Error):
            straggler.kill()


def _session(leader: int) -> list[psutil.Process]:
    members = []
    for process in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):
            if process.pid != leader and os.getsid(process.pid) == leader:
                members.append(process)
    return members


def session_cpu_seconds(leader: int) -> float:
    """Processor time of a leader and the session that it leads, in ticks of the system's clock."""
    total = 0.0
    for process in (psutil.Process(leader), *_session(leader)):
        with contextlib.suppress(psutil.Error):
            # Those of its children are of the ones that ended and that it knows of.
            total += sum(process.cpu_times()[:4])
    return total


def binary(name: str) -> str:
    """A program of this interpreter's environment, and so of its release of the engine."""
    return str(Path(sys.prefix) / "bin" / name)


def _log_path(pipeline: str, port: int) -> Path:
    return Path(tempfile.gettempdir()) / f"testbed-{pipeline}-{port}.log"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _in_child() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)  # ends when this process dies
    # Whoever listens to a server must not wait for a processor behind it, or it would time itself.
    os.nice(10)

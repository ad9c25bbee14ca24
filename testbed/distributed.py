"""A server whose second stage runs apart from it, so that replicas join and leave at run time."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import yaml

from testbed.paths import CACHE
from testbed.pipelines import deployment
from testbed.server import HOST, Server, binary, end_session, free_port, start_session

_STAGE = 1
#: A replica that says nothing for so long is taken for dead.
_HEARTBEAT_SECONDS = "5"


class DistributedServer(Server):
    """Serves the first stage itself; every replica of the second is a process of its own."""

    def __init__(
        self, *, env: Mapping[str, str] | None = None, log_path: Path | None = None
    ) -> None:
        self._master = ("--omni-master-address", HOST, "--omni-master-port", str(free_port()))
        head = ("--stage-id", "0", "--omni-lb-policy", "round-robin")
        heartbeat = ("--omni-heartbeat-timeout", _HEARTBEAT_SECONDS)
        super().__init__(env=env, args=(*self._master, *head, *heartbeat), log_path=log_path)
        self.members: list[subprocess.Popen[bytes]] = []

    def start(self, timeout: float = 480.0, waiting: Callable[[float], None] | None = None) -> None:
        self.join()  # the head does not answer before each stage has a replica
        super().start(timeout, waiting)

    def stop(self) -> None:
        for replica in self.members:
            end_session(replica)
        super().stop()

    def join(self) -> subprocess.Popen[bytes]:
        """Start one more replica; it joins when it is ready."""
        number = len(self.members)
        content = deployment(self.pipeline, replicas=1, async_chunk=True)
        content["stages"][_STAGE]["devices"] = str(_STAGE + number)
        deploy = CACHE / "deploy" / f"{self.pipeline.name}-{self.port}-{number}.yaml"
        deploy.parent.mkdir(parents=True, exist_ok=True)
        deploy.write_text(yaml.safe_dump(content))
        serve = [binary("vllm-omni"), "serve", str(self.pipeline.model), "--omni", "--headless"]
        where = ["--stage-id", str(_STAGE), "--omni-replica-address", HOST, *self._master]
        replica = start_session(
            [*serve, "--deploy-config", str(deploy), *where],
            self.environment,
            self.log_path.with_suffix(f".replica{number}.log"),
        )
        self.members.append(replica)
        return replica

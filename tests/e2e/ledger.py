"""A connector that keeps a ledger of what it stored and fetched, installed in the stage engines.

The engine loads it as a plugin of its own; it shares no code with ours.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from testbed.server import Server
from tests.e2e.conftest import settled
from vllm_omni_metrics_plugin.scrape import Scrape, scrape

EDGE_LABELS = ("from_stage", "from_replica", "to_stage", "to_replica")
TIMES = ("transfer_tx_time_ms", "transfer_in_flight_time_ms", "transfer_rx_decode_time_ms")
COUNTED = ("transfer_size_bytes", *TIMES)

_PLUGIN = """
import json
import os
import time


def register():
    from vllm_omni.distributed.omni_connectors.connectors.shm_connector import SharedMemoryConnector
    from vllm_omni.distributed.omni_connectors.factory import OmniConnectorFactory

    def note(**entry):
        line = json.dumps({"pid": os.getpid(), **entry}) + "\\n"
        file = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)

    class LedgerConnector(SharedMemoryConnector):
        def put(self, from_stage, to_stage, put_key, data):
            size = len(self.serialize_obj(data))
            began = time.monotonic()
            stored = super().put(from_stage, to_stage, put_key, data)
            if stored[0]:
                note(did="stored", key=put_key, size=size, began=began, ended=time.monotonic())
            return stored

        def get(self, from_stage, to_stage, get_key, metadata=None):
            fetched = super().get(from_stage, to_stage, get_key, metadata)
            if fetched is not None:
                note(did="fetched", key=get_key, size=fetched[1], ended=time.monotonic())
            return fetched

    OmniConnectorFactory._registry["SharedMemoryConnector"] = LedgerConnector
"""


@dataclass(frozen=True)
class Hop:
    """One payload that was stored and fetched; stage and replica as (0, 1)."""

    sender: tuple[int, int]
    receiver: tuple[int, int]
    size: int
    #: From the beginning of storing to the end of fetching.
    seconds: float


class Ledger:
    """The ledger of one server."""

    def __init__(self, folder: Path, more: Mapping[str, str] | None = None) -> None:
        """``more`` plugins of the engine are loaded too: the source of each, by its name."""
        self.file = folder / "ledger.jsonl"
        self.file.touch()
        for name, source in {"testbed_ledger": _PLUGIN, **(more or {})}.items():
            (folder / f"{name}.py").write_text(source)
            about = folder / f"{name}-1.dist-info"
            about.mkdir()
            (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
            (about / "entry_points.txt").write_text(
                f"[vllm.general_plugins]\n{name} = {name}:register\n"
            )
        path = filter(None, (str(folder), os.environ.get("PYTHONPATH")))
        self.environment = {"PYTHONPATH": os.pathsep.join(path), "LEDGER": str(self.file)}

    def sizes(self, did: str) -> dict[int, list[int]]:
        """Bytes of each payload that was ``stored`` or ``fetched``, by process id."""
        sizes: dict[int, list[int]] = {}
        for line in self.file.read_text().splitlines():
            entry = json.loads(line)
            if entry["did"] == did:
                sizes.setdefault(entry["pid"], []).append(entry["size"])
        return sizes

    def hops(self, members: Mapping[tuple[int, int], int], since: int = 0) -> list[Hop]:
        """What was both stored and fetched after byte ``since``, by whom: process ids tell."""
        with self.file.open() as file:
            file.seek(since)
            entries = [json.loads(line) for line in file]
        who = {pid: member for member, pid in members.items()}
        stored = {entry["key"]: entry for entry in entries if entry["did"] == "stored"}
        return [
            Hop(
                sender=who[stored[entry["key"]]["pid"]],
                receiver=who[entry["pid"]],
                size=stored[entry["key"]]["size"],
                seconds=entry["ended"] - stored[entry["key"]]["began"],
            )
            for entry in entries
            if entry["did"] == "fetched"
        ]

    def length(self) -> int:
        return os.path.getsize(self.file)


Edge = tuple[int, int, int, int]


def edges(seen: Scrape, sample: str) -> dict[Edge, float]:
    """A sample's value by edge, but for zeros."""
    by_edge: dict[Edge, float] = {}
    for labels in seen.label_sets(f"vllm:omni_{sample}"):
        value = seen.sum(f"vllm:omni_{sample}", **labels)
        if value:
            by_edge[_edge(*(int(labels[name]) for name in EDGE_LABELS))] = value
    return by_edge


def _edge(from_stage: int, from_replica: int, to_stage: int, to_replica: int) -> Edge:
    return from_stage, from_replica, to_stage, to_replica


def edge(hop: Hop) -> Edge:
    return _edge(*hop.sender, *hop.receiver)


class Seen:
    """What /metrics gained, once it holds as many hops as the ledger, and the ledger's hops."""

    def __init__(self, server: Server, ledger: Ledger) -> None:
        self._server = server
        self._ledger = ledger
        self._since = ledger.length()
        self._before = scrape(server.url)

    def all(self) -> tuple[Scrape, list[Hop]]:
        """Once nothing has moved for a second: what is under way may yet be fetched."""
        written = -1
        while written != (written := self._ledger.length()):
            time.sleep(1.0)
        hops = self._ledger.hops(self._server.stage_processes(), self._since)
        total = "vllm:omni_transfer_rx_decode_time_ms_count"
        wanted = len(hops) + self._before.sum(total)
        after = settled(self._server, lambda seen: seen.sum(total) >= wanted)
        return after - self._before, hops

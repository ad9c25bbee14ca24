"""A connector that keeps a ledger of what it stored and fetched, installed in the stage engines.

The engine loads it as a plugin of its own; it shares no code with ours.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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

    def __init__(self, folder: Path) -> None:
        self.file = folder / "ledger.jsonl"
        self.file.touch()
        (folder / "testbed_ledger.py").write_text(_PLUGIN)
        about = folder / "testbed_ledger-1.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: testbed-ledger\nVersion: 1\n")
        (about / "entry_points.txt").write_text(
            "[vllm.general_plugins]\ntestbed_ledger = testbed_ledger:register\n"
        )
        self.environment = {"PYTHONPATH": str(folder), "LEDGER": str(self.file)}

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

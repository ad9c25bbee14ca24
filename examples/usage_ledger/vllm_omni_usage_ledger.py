"""A hook plugin: what each request used and for whom, in an SQLite database."""

from __future__ import annotations

import argparse
import atexit
import csv
import logging
import os
import sqlite3
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path

from vllm_omni_metrics_plugin.hooks import (
    Configured,
    MediaPacket,
    RequestArrived,
    RequestFinished,
    hookimpl,
)

logger = logging.getLogger("vllm.omni_usage_ledger")

FILE = "vllm-omni-usage.sqlite"
COMMIT_SECONDS = 1.0
#: At the end of the process, while another one has the database.
LAST_TRIES = 5
#: Requests that wait for a database that cannot be written; what comes then is lost, and counted.
MOST_WAITING = 100_000

SCHEMA = """
create table if not exists requests (
    request_id text primary key,
    ended_at real not null,  -- seconds since 1970
    customer text,  -- null if the client did not send the header
    model text not null,
    endpoint text,
    outcome text not null,
    tokens_in integer,  -- null, as below: not known
    tokens_out integer,
    audio_seconds real,
    images integer,
    video_seconds real
) without rowid;
create view if not exists usage as
select date(ended_at, 'unixepoch') as day, customer, model, count(*) as requests,
    total(tokens_in) as tokens_in, total(tokens_out) as tokens_out,
    total(audio_seconds) as audio_seconds, total(images) as images,
    total(video_seconds) as video_seconds,
    sum(tokens_in is null or tokens_out is null or audio_seconds is null or images is null
        or video_seconds is null) as incomplete
from requests group by day, customer, model;
"""
INSERT = f"insert or ignore into requests values ({', '.join('?' * 11)})"

Row = tuple[object, ...]


class UsageLedger:
    """Takes a row of each request that ends; a thread of its own commits them every second."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ
        self._path = FILE
        #: The header that says who the customer is.
        self._by = ""
        #: Of each open request, the seconds of audio in each packet that left for its client.
        self._audio: dict[str, list[float | None]] = {}
        self._ended: deque[Row] = deque()
        self._writing: list[Row] = []
        self._database: sqlite3.Connection | None = None
        self._is_down = False
        self._losing = threading.Lock()
        self._lost = 0
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    # None of them is slow: a full queue must not cost a row.

    @hookimpl
    def omni_configured(self, event: Configured) -> None:
        if event.role != "server" or self._thread is not None:
            return
        self._path = self._environ.get("VLLM_OMNI_USAGE") or FILE
        carried = [header.name for header in event.settings.headers]
        named = (self._environ.get("VLLM_OMNI_USAGE_BY") or "").lower()
        self._by = named or next(iter(carried), "")
        if self._by not in carried:
            logger.warning(
                "VLLM_OMNI_USAGE_BY=%r is not among VLLM_OMNI_METRICS_HEADERS (%s); usage is "
                "recorded without a customer",
                named,
                ", ".join(carried) or "none",
            )
        self._thread = threading.Thread(target=self._run, name="omni-usage-ledger", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    @hookimpl
    def omni_request_arrived(self, event: RequestArrived) -> None:
        if self._thread is not None:
            self._audio[event.request_id] = []

    @hookimpl
    def omni_media_packet(self, event: MediaPacket) -> None:
        """Audio is counted as it leaves: whoever leaves early has used what it got."""
        packets = self._audio.get(event.request_id)
        if packets is not None and event.modality == "audio":
            packets.append(event.samples / event.sample_rate if event.sample_rate else None)

    @hookimpl
    def omni_request_finished(self, event: RequestFinished) -> None:
        packets = self._audio.pop(event.request_id, [None])
        if self._thread is None:
            return
        if len(self._ended) + len(self._writing) >= MOST_WAITING:
            with self._losing:
                self._lost += 1
            return
        self._ended.append(
            (
                event.request_id.encode(errors="replace").decode(),  # clients may choose it
                time.time(),
                dict(event.headers).get(self._by),
                event.model_name,
                event.endpoint,
                event.outcome,
                # Of the first stage, as the engine's own answers say in their ``usage``.
                _sum(stage.tokens_in for stage in event.stages[:1]),
                _sum(stage.tokens_out for stage in event.stages[:1]),
                _sum(packets),
                _sum(None if made.unknown_form else made.images for made in event.images),
                _sum(made.duration_seconds for made in event.videos),
            )
        )

    def close(self) -> None:
        """Commit what is left and end the thread; what comes later is not recorded."""
        thread, self._thread = self._thread, None
        if thread is not None:
            atexit.unregister(self.close)
            self._stopping.set()
            thread.join(10.0)

    def _run(self) -> None:
        tries = LAST_TRIES
        while tries:
            if self._stopping.wait(COMMIT_SECONDS):
                tries -= 1
            while self._ended:
                self._writing.append(self._ended.popleft())
            try:
                self._commit()
            except Exception as error:
                # The rows stay; a row that was committed all the same is ignored next time.
                self._reopen()
                if not self._is_down:
                    logger.error("%s cannot be written, and is tried again: %s", self._path, error)
                self._is_down = True
                if self._stopping.is_set():
                    time.sleep(0.1)
            else:
                if self._stopping.is_set() and not self._ended:
                    break
        self._reopen()
        if self._writing:
            logger.error("%s: %d requests were lost at the end", self._path, len(self._writing))

    def _commit(self) -> None:
        if self._database is None:
            self._database = _open(self._path)
        with self._database:
            self._database.executemany(INSERT, self._writing)
        self._writing = []
        if self._is_down:
            logger.warning("%s is written again", self._path)
            self._is_down = False
        with self._losing:
            lost, self._lost = self._lost, 0
        if lost:
            logger.error(
                "%s: %d requests were lost, as %d waited for it", self._path, lost, MOST_WAITING
            )

    def _reopen(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            database.close()


def _open(path: str) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=5.0)
    # A commit outlives the process and the power, and keeps nobody from reading.
    database.execute("pragma journal_mode = wal")
    database.execute("pragma synchronous = full")
    database.executescript(SCHEMA)
    return database


def _sum(values: Iterable[float | None]) -> float | None:
    """None if any of them is not known."""
    known = list(values)
    return None if None in known else sum(value for value in known if value is not None)


def main(arguments: list[str] | None = None) -> int:
    """Print the view ``usage`` as CSV: by day, customer and model."""
    parser = argparse.ArgumentParser("vllm-omni-usage", description=main.__doc__)
    parser.add_argument("file", nargs="?", default=os.environ.get("VLLM_OMNI_USAGE") or FILE)
    parser.add_argument("--since", default="", metavar="YYYY-MM-DD", help="that day and later")
    chosen = parser.parse_args(arguments)
    if not Path(chosen.file).is_file():
        parser.error(f"{chosen.file} is not there; VLLM_OMNI_USAGE names the file")
    with closing(sqlite3.connect(chosen.file)) as database:
        found = database.execute("select * from usage where day >= ?", (chosen.since,))
        lines = csv.writer(sys.stdout)
        lines.writerow(column[0] for column in found.description)
        lines.writerows(found)
    return 0


plugin = UsageLedger()

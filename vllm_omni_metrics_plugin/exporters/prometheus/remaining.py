"""The work that is left of the open requests, in seconds of the replicas that are to do it.

A replica that executes several requests at once gives each of them its share of every second. So
the shares of all add up to the time in which it was busy, and what is left falls by one second a
second and replica.

As in :mod:`occupancy`, events of one request may overtake each other, and where a request is in a
stage only ever moves on. Nothing here looks at a clock: whoever tells or asks says what time it is.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from vllm_omni_metrics_plugin.exporters.prometheus.costs import Cost, cost_of
from vllm_omni_metrics_plugin.exporters.prometheus.occupancy import Replica
from vllm_omni_metrics_plugin.hooks import Demand

Stage = tuple[str, int]

_ANY = Demand()

_COMING, _WAITING, _EXECUTING, _OVER = range(4)


class Left(NamedTuple):
    """Seconds of work that is left; who is not in it cannot be known yet."""

    models: dict[str, float]
    replicas: dict[Replica, float]


class _Shares:
    """How many seconds a replica has given to a request that it executes since the beginning."""

    __slots__ = ("_given", "_until", "executing")

    def __init__(self) -> None:
        self.executing = 0
        self._given = 0.0
        self._until = float("-inf")

    def given(self, now: float) -> float:
        if not self.executing or now <= self._until:
            return self._given
        return self._given + (now - self._until) / self.executing

    def start(self, at: float) -> float:
        return self._change(at, 1)

    def end(self, at: float) -> float:
        return self._change(at, -1)

    def _change(self, at: float, by: int) -> float:
        self._given = self.given(at)
        self._until = max(self._until, at)
        self.executing += by
        return self._given


class _Part:
    """A request in a stage."""

    __slots__ = ("cut", "demand", "finished", "given", "phase", "replica", "seconds", "tokens")

    def __init__(self, demand: Demand) -> None:
        self.demand = demand
        self.phase = _COMING
        self.replica: Replica | None = None
        #: What its replica had given when it started.
        self.given = 0.0
        #: What it took; None before its end, and where start or end are not known.
        self.seconds: float | None = None
        self.finished = self.cut = False
        self.tokens: int | None = None


class _Request:
    __slots__ = ("model_name", "parts")

    def __init__(self, model_name: str) -> None:
        self.model_name = model_name
        #: By stage; those as well that it will come to.
        self.parts: dict[int, _Part] = {}


class Remaining:
    """Follows the open requests; keeps nothing of one that is over. Any thread may tell."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: dict[str, _Request] = {}
        #: By request and stage, what is executed although the request is over.
        self._going_on: dict[tuple[str, int], _Part] = {}
        #: Of the replicas that are there.
        self._shares: dict[Replica, _Shares] = {}
        self._costs: dict[Stage, Cost] = {}
        #: The stages that any request came to, or was to come to.
        self._asked: set[Stage] = set()

    def joined(self, replica: Replica, stage_type: str) -> None:
        with self._lock:
            self._shares.setdefault(replica, _Shares())
            self._costs.setdefault(replica[:2], cost_of(stage_type))

    def arrived(self, request_id: str, model_name: str) -> None:
        with self._lock:
            self._requests.setdefault(request_id, _Request(model_name))

    def submitted(self, request_id: str, replica: Replica, demands: Sequence[Demand] = ()) -> None:
        """A replica has it; ``demands`` are those on each stage that it comes to."""
        with self._lock:
            request = self._requests.get(request_id)
            if request is None:
                return
            for stage, demand in enumerate(demands):
                request.parts.setdefault(stage, _Part(demand))
            part = self._part(request, replica)
            self._asked.update((request.model_name, stage) for stage in request.parts)
            if part.phase <= _WAITING:
                part.phase = _WAITING
                part.replica = replica

    def started(self, request_id: str, replica: Replica, at: float) -> None:
        with self._lock:
            request = self._requests.get(request_id)
            shares = self._shares.get(replica)
            if request is None or shares is None:
                return
            part = self._part(request, replica)
            if part.phase <= _WAITING:
                part.phase = _EXECUTING
                part.replica = replica
                part.given = shares.start(at)

    def ended(self, request_id: str, replica: Replica, at: float, *, is_known: bool) -> None:
        """``is_known`` is false where its times are not, so that nothing is learned from them."""
        with self._lock:
            part = self._going_on.pop((request_id, replica[1]), None)
            if part is not None:
                self._end(part, at)
                return
            request = self._requests.get(request_id)
            if request is not None:
                part = self._part(request, replica)
                seconds = self._end(part, at)
                part.seconds = seconds if is_known else None
                self._learn(request, replica[1], part)

    def finished(self, request_id: str, replica: Replica, tokens: int | None, *, cut: bool) -> None:
        """The stage gave all of it; ``cut`` if a limit on its ``tokens`` ended it."""
        with self._lock:
            request = self._requests.get(request_id)
            if request is not None:
                part = self._part(request, replica)
                if part.phase <= _WAITING:
                    part.phase = _OVER  # its start is lost, or late, which is no use any more
                part.finished, part.tokens, part.cut = True, tokens, cut
                self._learn(request, replica[1], part)

    def closed(self, request_id: str) -> None:
        """The request is over; what it executes goes on until it is told otherwise."""
        with self._lock:
            request = self._requests.pop(request_id, None)
            if request is not None:
                for stage, part in request.parts.items():
                    if part.phase == _EXECUTING:
                        self._going_on[request_id, stage] = part

    def left(self, replica: Replica) -> None:
        """A replica is gone, with all that it had."""
        with self._lock:
            for request in self._requests.values():
                part = request.parts.get(replica[1])
                if part is not None and part.replica == replica:
                    part.phase = _OVER
            for key in [key for key, part in self._going_on.items() if part.replica == replica]:
                del self._going_on[key]
            self._shares.pop(replica, None)

    def read(self, now: float) -> Left:
        """All of one moment."""
        with self._lock:
            return self._read(now)

    def _read(self, now: float) -> Left:
        given = {replica: shares.given(now) for replica, shares in self._shares.items()}
        placed = dict.fromkeys(self._shares, 0.0)
        members = Counter(replica[:2] for replica in placed)
        coming = dict.fromkeys(members, 0.0)
        known = {stage for stage, cost in self._costs.items() if cost.expect(_ANY) is not None}
        for stage, part in self._open_parts():
            if part.phase == _OVER or stage not in members:
                continue
            seconds = self._costs[stage].expect(part.demand)
            if seconds is None:
                continue
            if part.replica is None:
                coming[stage] += seconds
            elif part.replica in placed:
                if part.phase == _EXECUTING:
                    seconds -= given[part.replica] - part.given
                placed[part.replica] += max(0.0, seconds)
        replicas = {
            replica: seconds + coming[replica[:2]] / members[replica[:2]]
            for replica, seconds in placed.items()
            if replica[:2] in known
        }
        sums = dict.fromkeys(members, 0.0)
        for replica, seconds in replicas.items():
            sums[replica[:2]] += seconds
        guessed = {model for model, _ in self._asked - known}
        models: dict[str, float] = {}
        for stage in known & members.keys():
            name = stage[0]
            if name not in guessed:
                models[name] = max(models.get(name, 0.0), sums[stage] / members[stage])
        return Left(models, replicas)

    def _open_parts(self) -> Iterator[tuple[Stage, _Part]]:
        for request in self._requests.values():
            for stage, part in request.parts.items():
                yield (request.model_name, stage), part
        for part in self._going_on.values():
            if part.replica is not None:
                yield part.replica[:2], part

    def _part(self, request: _Request, replica: Replica) -> _Part:
        return request.parts.setdefault(replica[1], _Part(_ANY))

    def _end(self, part: _Part, at: float) -> float | None:
        """The seconds that it took, if it executed."""
        executed = part.phase == _EXECUTING
        part.phase = _OVER
        shares = self._shares.get(part.replica) if part.replica is not None else None
        return max(0.0, shares.end(at) - part.given) if executed and shares is not None else None

    def _learn(self, request: _Request, stage: int, part: _Part) -> None:
        cost = self._costs.get((request.model_name, stage))
        if part.finished and part.seconds is not None and cost is not None:
            cost.learn(part.seconds, part.demand, part.tokens, cut=part.cut)
            part.seconds = None

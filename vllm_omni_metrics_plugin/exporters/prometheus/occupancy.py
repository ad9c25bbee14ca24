"""Who waits and who executes: of each model, and of each stage replica.

Events of one request come from several threads, so one may overtake another: where a request is in
a stage only ever moves on, and counts follow from that. One lock holds all of it together, so that
a reader sees running and waiting of the same moment.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

Replica = tuple[str, int, int]

_WAITING, _EXECUTING, _OVER = range(3)


class ModelLoad(NamedTuple):
    """Of a model, in one moment."""

    running: int
    waiting: int
    #: Since when the first of those waits, in monotonic seconds; None if none does.
    waiting_since: float | None


class ReplicaLoad(NamedTuple):
    """Of a stage replica, in one moment."""

    running: int
    waiting: int
    busy_seconds: float


class _Part:
    """A request in a stage."""

    __slots__ = ("phase", "replica")

    def __init__(self, replica: _ReplicaState) -> None:
        self.replica = replica
        self.phase = _WAITING


class _Request:
    __slots__ = ("executing", "model", "parts")

    def __init__(self, model: _Model) -> None:
        self.model = model
        #: By stage.
        self.parts: dict[int, _Part] = {}
        #: In how many stages it executes.
        self.executing = 0


class _Model:
    __slots__ = ("open", "waiting")

    def __init__(self) -> None:
        self.open = 0
        #: Since when, by request.
        self.waiting: dict[str, float] = {}


class _ReplicaState:
    """What a replica executes; its busy time is a union, as what it executes overlaps."""

    __slots__ = ("_busy", "_until", "running", "since", "waiting")

    def __init__(self) -> None:
        self.running = 0
        self.waiting = 0
        self._busy = 0.0
        #: The end of the last busy interval, and the beginning of the one that goes on.
        self._until = float("-inf")
        self.since = 0.0

    def start(self, at: float) -> None:
        self.running += 1
        if self.running == 1:
            self.since = max(at, self._until)

    def end(self, at: float) -> None:
        self.running -= 1
        self._until = max(self._until, at)
        if self.running == 0:
            self._until = max(self._until, self.since)
            self._busy += self._until - self.since

    def busy(self, now: float) -> float:
        return self._busy + (max(0.0, now - self.since) if self.running else 0.0)


class Occupancy:
    """Follows the open requests; keeps nothing of one that is over. Any thread may tell."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._models: dict[str, _Model] = {}
        self._replicas: dict[Replica, _ReplicaState] = {}
        self._requests: dict[str, _Request] = {}
        #: By request and stage, what is executed although the request is over.
        self._going_on: dict[tuple[str, int], _Part] = {}

    def expect(self, replica: Replica) -> None:
        """It is there, with nothing to do."""
        with self._lock:
            self._models.setdefault(replica[0], _Model())
            self._replica(replica)

    def arrived(self, request_id: str, model_name: str, at: float) -> None:
        with self._lock:
            if request_id not in self._requests:
                model = self._models.setdefault(model_name, _Model())
                self._requests[request_id] = _Request(model)
                model.open += 1
                model.waiting[request_id] = at

    def submitted(self, request_id: str, replica: Replica) -> None:
        with self._lock:
            request = self._requests.get(request_id)
            if request is None:
                return
            part = request.parts.get(replica[1])
            if part is None:
                self._new_part(request, replica)
            elif part.phase == _WAITING:  # another replica has it now
                part.replica.waiting -= 1
                part.replica = self._replica(replica)
                part.replica.waiting += 1

    def started(self, request_id: str, replica: Replica, at: float) -> None:
        with self._lock:
            request = self._requests.get(request_id)
            if request is not None:
                part = request.parts.get(replica[1]) or self._new_part(request, replica)
                self._start(request_id, request, part, at)

    def gave_output(self, request_id: str, stage: int, at: float) -> None:
        """What gives an output has started."""
        request = self._requests.get(request_id)
        part = request.parts.get(stage) if request is not None else None
        if part is not None and part.phase == _WAITING:  # mostly it is known
            with self._lock:
                request = self._requests.get(request_id)
                if request is not None:
                    self._start(request_id, request, part, at)

    def ended(self, request_id: str, replica: Replica, at: float) -> None:
        """What ends has started, so this is enough where the start is not known."""
        stage = replica[1]
        with self._lock:
            going_on = self._going_on.pop((request_id, stage), None)
            if going_on is not None:
                going_on.replica.end(at)
                return
            request = self._requests.get(request_id)
            if request is not None:
                part = request.parts.get(stage) or self._new_part(request, replica)
                self._end(request_id, request, part, at)

    def closed(self, request_id: str, ends_at: float | None = None) -> None:
        """The request is over; what it executes goes on until it is told otherwise.

        With ``ends_at`` that ends, too, as nobody may be told of its end.
        """
        with self._lock:
            request = self._requests.pop(request_id, None)
            if request is None:
                return
            request.model.open -= 1
            request.model.waiting.pop(request_id, None)
            for stage, part in request.parts.items():
                if part.phase == _WAITING:
                    part.replica.waiting -= 1
                elif part.phase == _EXECUTING and ends_at is not None:
                    part.replica.end(ends_at)
                elif part.phase == _EXECUTING:
                    self._going_on[request_id, stage] = part

    def left(self, replica: Replica, at: float) -> None:
        """A replica is gone, with all that it had."""
        with self._lock:
            gone = self._replica(replica)
            for request_id, request in self._requests.items():
                part = request.parts.get(replica[1])
                if part is not None and part.replica is gone:
                    self._end(request_id, request, part, at)
            for key in [key for key, part in self._going_on.items() if part.replica is gone]:
                del self._going_on[key]
                gone.end(at)

    def read(self, now: float) -> tuple[dict[str, ModelLoad], dict[Replica, ReplicaLoad]]:
        """All of one moment, by model name and by replica."""
        with self._lock:
            models = {
                name: ModelLoad(
                    model.open - len(model.waiting),
                    len(model.waiting),
                    min(model.waiting.values(), default=None),
                )
                for name, model in self._models.items()
            }
            replicas = {
                key: ReplicaLoad(state.running, state.waiting, state.busy(now))
                for key, state in self._replicas.items()
            }
        return models, replicas

    def _replica(self, replica: Replica) -> _ReplicaState:
        state = self._replicas.get(replica)
        if state is None:
            state = self._replicas[replica] = _ReplicaState()
        return state

    def _new_part(self, request: _Request, replica: Replica) -> _Part:
        part = request.parts[replica[1]] = _Part(self._replica(replica))
        part.replica.waiting += 1
        return part

    def _start(self, request_id: str, request: _Request, part: _Part, at: float) -> None:
        if part.phase != _WAITING:
            return
        part.phase = _EXECUTING
        part.replica.waiting -= 1
        part.replica.start(at)
        request.executing += 1
        request.model.waiting.pop(request_id, None)

    def _end(self, request_id: str, request: _Request, part: _Part, at: float) -> None:
        if part.phase == _WAITING:
            part.replica.waiting -= 1
        elif part.phase == _EXECUTING:
            part.replica.end(at)
            request.executing -= 1
            if not request.executing:
                request.model.waiting[request_id] = at
        part.phase = _OVER

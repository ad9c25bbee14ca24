"""What the patches of a process share: the hooks they call, and what they know of the engine."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from vllm_omni_metrics_plugin.channel.frames import (
    EndedRecord,
    FailedHalf,
    ReceivedHalf,
    SentHalf,
    StartedRecord,
    WireEvent,
)
from vllm_omni_metrics_plugin.channel.hops import Transfers
from vllm_omni_metrics_plugin.media.playback import PLAYERS
from vllm_omni_metrics_plugin.patches.metrics_route import AnswersFor
from vllm_omni_metrics_plugin.patches.process import clock
from vllm_omni_metrics_plugin.patches.transfer_keys import requests_of
from vllm_omni_metrics_plugin.request_headers import RequestHeaders
from vllm_omni_metrics_plugin.requests import OpenRequests
from vllm_omni_metrics_plugin.requests.arrival import WallClock
from vllm_omni_metrics_plugin.requests.bindings import Binding
from vllm_omni_metrics_plugin.sessions import Piece, Sessions

#: Takes what this process sees of hops and executions.
Report = Callable[[WireEvent], None]


@dataclass(frozen=True)
class Stage:
    """What the events of a stage pool's members say about it."""

    model_name: str
    stage_name: str
    stage_type: str
    makes: tuple[str, ...] = ()
    feeds: tuple[int, ...] = ()


class EngineState:
    """Every patch gets it when it is applied; see ``startup`` for the one of a real process."""

    def __init__(self, hooks: Any, players: Sequence[float] = PLAYERS) -> None:
        """``hooks`` are those of a :class:`~vllm_omni_metrics_plugin.hooks.HookRegistry`.

        ``players`` of streamed audio, by the seconds that they buffer.
        """
        self.hooks = hooks
        self.requests = OpenRequests(hooks, players)
        #: In which endpoints say when a request reached them.
        self.wall_clock = WallClock()
        self.transfers = Transfers(hooks, self._owner)
        #: Where that goes which this process sees of hops and executions. Here it is taken at once,
        #: as stages may run inside the server; other processes send it, or nobody wants it (None).
        self.report: Report | None = self.take
        #: Called before an engine is built whose stages will report to this process.
        self.before_engine: list[Callable[[], None]] = []
        #: Called once such an engine is there.
        self.after_engine: list[Callable[[], None]] = []
        #: Answers for ``/metrics`` in the engine's place; None leaves it to the engine.
        self.answers_for: AnswersFor | None = None
        #: Reads the headers that events carry; None if they carry none.
        self.request_headers: RequestHeaders | None = None
        #: By stage pool, from the moment its engine is ready.
        self.stages: weakref.WeakKeyDictionary[Any, Stage] = weakref.WeakKeyDictionary()
        #: By engine, the name that its families carry.
        self.model_names: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
        #: By the manager of an engine's sessions.
        self.sessions: weakref.WeakKeyDictionary[Any, Sessions] = weakref.WeakKeyDictionary()
        #: By the id of a voice detector, the piece of sound that it listens to now.
        self.voices: dict[int, Piece] = {}
        #: By stage pool, the stat logger and the engine numbers that its orchestrator gave out.
        self.stat_loggers: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()

    def name_engine(self, omni: Any, name: str) -> None:
        """The engine's families carry this name."""
        self.model_names[omni] = name
        # A payload of an unknown request is this engine's, unless it may be another one's.
        alone = set(self.model_names.values()) == {name}
        self.transfers.model_name = name if alone else None

    def take(self, event: WireEvent) -> None:
        """One end of a hop or of an execution became known, here or in another process."""
        if isinstance(event, StartedRecord):
            self.requests.started(
                event.request_id,
                event.stage,
                event.replica,
                event.started_at if event.clock == clock() else None,
                tells_end=event.tells_end,
                others=event.others,
            )
        elif isinstance(event, EndedRecord):
            at = event.ended_at if event.clock == clock() else None
            self.requests.ended(event.request_id, event.stage, at)
        else:
            if not isinstance(event, FailedHalf) and event.clock == clock():
                self._move(event)
            self.transfers.report(event)

    def forget_outdated(self) -> None:
        """Give up what has waited too long for its other end; called now and then."""
        self.transfers.forget_outdated()
        self.requests.executions.forget_outdated()

    def _move(self, half: SentHalf | ReceivedHalf) -> None:
        """A request's payload left a stage, or came to one."""
        ids = requests_of(half.key, half.from_stage, half.to_stage)
        payload = ids, half.key, half.from_stage, half.to_stage
        if isinstance(half, SentHalf):
            self.requests.payload_sent(*payload, half.sent_at - half.duration_seconds)
        else:
            asked_at = half.received_at - half.duration_seconds
            self.requests.input_arrived(*payload, asked_at, half.received_at)

    def _owner(self, key: str, from_stage: int, to_stage: int) -> Binding | None:
        for request_id in requests_of(key, from_stage, to_stage):
            binding = self.requests.bindings.of(request_id)
            if binding is not None:
                return binding
        return None

"""The requests that are open in this process, and the events of each.

Two threads of the server come here: the event loop (begin, output, end) and the orchestrator
(submitted, finished). Each field is written by one of them; what the event loop reads of the
other's was written before the engine's queue handed the output over.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.hooks import (
    Demand,
    DiffusionWork,
    RequestArrived,
    StageFinished,
    StageSubmitted,
)
from vllm_omni_metrics_plugin.media.playback import PLAYERS
from vllm_omni_metrics_plugin.requests.background import Background
from vllm_omni_metrics_plugin.requests.bindings import Bindings
from vllm_omni_metrics_plugin.requests.client import UNKNOWN, Client
from vllm_omni_metrics_plugin.requests.end import Judge
from vllm_omni_metrics_plugin.requests.executions import Executions
from vllm_omni_metrics_plugin.requests.request import OpenRequest
from vllm_omni_metrics_plugin.requests.stalls import Stalls
from vllm_omni_metrics_plugin.requests.streamed_input import StreamedInput
from vllm_omni_metrics_plugin.requests.tracing import Accepted, BeginTrace


class OpenRequests:
    """All open requests of an engine, by the engine's internal id."""

    def __init__(self, hooks: Any, players: Sequence[float] = PLAYERS) -> None:
        """``hooks`` are those of a :class:`~vllm_omni_metrics_plugin.hooks.HookRegistry`.

        ``players`` of streamed audio, by the seconds that they buffer.
        """
        self.hooks = hooks
        self.players = players
        #: Judges each request at its end; None where nobody has objectives.
        self.judge: Judge | None = None
        self.background = Background()
        self.stalls = Stalls()
        self.by_id: dict[str, OpenRequest] = {}
        #: Whether a request ever runs is decided once, by its first submit or its end.
        self._deciding = threading.Lock()
        #: The ids of warm-ups that have not ended; nothing is told of them.
        self.nobodys: set[str] = set()
        self.bindings = Bindings()
        self.executions = Executions(hooks)
        #: Decides of each request, at its arrival, whether it is recorded; None if none is.
        self.begin_trace: BeginTrace | None = None

    def begin(
        self,
        request_id: str,
        external_request_id: str,
        model_name: str,
        arrived_at: float | None,
        streamed_input: StreamedInput | None = None,
        modalities: tuple[str, ...] = (),
        client: Client = UNKNOWN,
    ) -> OpenRequest:
        """A request arrived; ``arrived_at`` in monotonic seconds, None if it is not known.

        ``streamed_input``, unless all of its input is there. ``modalities`` are those that it asks
        for, as far as that is known; ``client`` is who asks.
        """
        request = OpenRequest(self, request_id, model_name, arrived_at, streamed_input)
        request.external_request_id = external_request_id
        request.client = client
        self.by_id[request_id] = request
        self.bindings.begin(request_id, model_name)
        if self.begin_trace is not None:
            with internal_errors.suppressed("the beginning of a trace"):
                at = time.monotonic() if arrived_at is None else arrived_at
                accepted = Accepted(request_id, external_request_id, model_name, at, client)
                request.trace_id = self.begin_trace(accepted)
        if self.hooks.omni_request_arrived.listeners:
            self.hooks.omni_request_arrived(
                RequestArrived(
                    request_id=request_id,
                    external_request_id=external_request_id,
                    model_name=model_name,
                    arrived_at=time.monotonic() if arrived_at is None else arrived_at,
                    modalities=modalities,
                    endpoint=client.endpoint,
                    transport=client.transport,
                    headers=client.headers,
                    trace_id=request.trace_id,
                )
            )
        return request

    def submitted(
        self,
        request_id: str,
        stage: int,
        replica: int,
        parent_request_id: str | None,
        demands: tuple[Demand, ...] = (),
    ) -> None:
        """A replica of ``stage`` was given the request, with its ``demands`` on each stage."""
        if request_id in self.nobodys or parent_request_id in self.nobodys:
            return
        request = self.by_id.get(request_id)
        work = request.stages.get(stage) if request else None
        if work is not None:
            work.replica = replica
        first = request is not None and self._dispatch(request)
        self.bindings.bind(request_id, stage, replica, parent_request_id)
        if self.hooks.omni_stage_submitted.listeners:
            self.hooks.omni_stage_submitted(
                StageSubmitted(
                    request_id=request_id,
                    stage=stage,
                    replica=replica,
                    submitted_at=work.submitted_at if work else time.monotonic(),
                    parent_request_id=parent_request_id,
                    model_name=request.model_name if request else None,
                    first=first,
                    demands=demands,
                )
            )
        if request is not None:
            self.executions.placed(request, stage)

    def started(
        self,
        request_id: str,
        stage: int,
        replica: int | None,
        at: float | None,
        *,
        tells_end: bool = False,
        others: int | None = None,
    ) -> None:
        """A scheduler admitted a request of anybody's; as :meth:`Executions.started` says."""
        request = self.by_id.get(request_id)
        binding = self.bindings.of(request_id) if request is None else None
        if binding is not None and binding.parent_id is not None:
            self.executions.companion_started(request_id, binding, stage, at)
        else:
            self.executions.started(
                request_id, request, stage, replica, at, tells_end=tells_end, others=others
            )

    def ended(self, request_id: str, stage: int, at: float | None) -> None:
        """A scheduler executes a request no more."""
        self.executions.ended(request_id, self.by_id.get(request_id), stage, at)

    def payload_sent(
        self, request_ids: Iterable[str], key: str, from_stage: int, stage: int, began_at: float
    ) -> None:
        """A stage began to send ``stage`` a payload, of one of these requests."""
        for request in self._of_payload(request_ids):
            request.paths.inputs_of(stage).sent(key, from_stage, began_at)

    def input_arrived(
        self,
        request_ids: Iterable[str],
        key: str,
        from_stage: int,
        stage: int,
        asked_at: float,
        at: float,
    ) -> None:
        """A stage received a payload, of one of these requests; it called for it before."""
        for request in self._of_payload(request_ids):
            request.paths.inputs_of(stage).received(key, from_stage, asked_at, at)
            work = request.stages.get(stage)
            if work is not None and work.input_at is None and not work.started:
                work.input_at = at

    def stage_output(self, request_id: str, stage: int) -> None:
        """An output of a stage is in the server."""
        request = self.by_id.get(request_id)
        work = request.stages.get(stage) if request is not None else None
        if work is not None and work.output_at is None:
            work.output_at = time.monotonic()

    def _of_payload(self, request_ids: Iterable[str]) -> Iterator[OpenRequest]:
        """The open request that a payload belongs to; an extra one's belongs to its parent."""
        for request_id in request_ids:
            request = self.by_id.get(request_id)
            if request is None:
                binding = self.bindings.of(request_id)
                parent = binding.parent_id if binding is not None else None
                request = self.by_id.get(parent) if parent is not None else None
            if request is not None:
                yield request
                return

    def _dispatch(self, request: OpenRequest) -> bool:
        """Whether this is the first submit of a request that is open."""
        with self._deciding:
            if request.dispatched or self.by_id.get(request.request_id) is not request:
                return False
            request.dispatched = True
            return True

    def close(self, request: OpenRequest) -> bool:
        """Forget a request; False if it was closed before."""
        with self._deciding:
            if self.by_id.get(request.request_id) is not request:
                return False
            del self.by_id[request.request_id]
            return True

    def segment_finished(self, request_id: str, stage: int, finish_reason: str | None) -> None:
        """A replica finished a piece of a streamed input."""
        request = self.by_id.get(request_id)
        work = request.stages.get(stage) if request else None
        if work is not None:
            work.finish_reasons.add(finish_reason)
            work.had_pieces = True

    def stage_finished(
        self,
        request_id: str,
        stage: int,
        replica: int,
        finish_reason: str | None,
        tokens_in: int | None,
        tokens_out: int | None,
        diffusion: DiffusionWork | None = None,
    ) -> None:
        """A replica finished its part of the request."""
        if request_id in self.nobodys:
            return
        now = time.monotonic()
        request = self.by_id.get(request_id)
        work = request.stages.get(stage) if request else None
        if request is not None and work is not None:
            work.replica = replica
            work.finish_reasons.add(finish_reason)
            work.generation_seconds = work.generated_until(now, request.streamed_input)
            work.diffusion = diffusion
            if work.had_pieces:
                tokens_in = tokens_out = None
            work.finish_reason = finish_reason
            work.tokens_in, work.tokens_out = tokens_in, tokens_out
        if request is not None:
            self.executions.finished(request, stage, now)
        if self.hooks.omni_stage_finished.listeners:
            self.hooks.omni_stage_finished(
                StageFinished(
                    request_id=request_id,
                    stage=stage,
                    replica=replica,
                    finished_at=now,
                    generation_seconds=work.generation_seconds if work else None,
                    tokens_in=tokens_in,
                    tokens_out=tokens_out,
                    finish_reason=finish_reason,
                    model_name=request.model_name if request else None,
                    diffusion=diffusion,
                )
            )

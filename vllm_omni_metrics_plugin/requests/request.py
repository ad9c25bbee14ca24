"""One open request, and the events of its outputs and its end.

Two threads of the server come here: the event loop (output, end) and the orchestrator (submit).
Each field is written by one of them; what the event loop reads of the other's was written before
the engine's queue handed the output over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from vllm_omni_metrics_plugin.hooks import (
    AudioFinished,
    ImageFinished,
    MediaPacket,
    RequestFinished,
    VideoFinished,
)
from vllm_omni_metrics_plugin.requests import heard, utterance
from vllm_omni_metrics_plugin.requests.audio import AudioOutput
from vllm_omni_metrics_plugin.requests.client import UNKNOWN
from vllm_omni_metrics_plugin.requests.encoding import Encoding, current_encoding
from vllm_omni_metrics_plugin.requests.end import Judge, tell
from vllm_omni_metrics_plugin.requests.exchange import Ending, Exchange
from vllm_omni_metrics_plugin.requests.executions import Executions
from vllm_omni_metrics_plugin.requests.failure import Failure, cause_of, failure_of
from vllm_omni_metrics_plugin.requests.outcome import CUT_SHORT, ending_of, outcome_of
from vllm_omni_metrics_plugin.requests.paths import Paths
from vllm_omni_metrics_plugin.requests.stream import Stream, Waited, are_looked_at
from vllm_omni_metrics_plugin.requests.streamed_input import StreamedInput
from vllm_omni_metrics_plugin.requests.utterance import Utterance
from vllm_omni_metrics_plugin.requests.visual import VisualOutput
from vllm_omni_metrics_plugin.requests.work import Delivery, StageWork


class OpenRequests(utterance.OpenRequests, Protocol):
    """All that are open, to one of them."""

    executions: Executions
    #: None where nobody has objectives.
    judge: Judge | None

    def close(self, request: OpenRequest) -> bool:
        """Forget it; False if that was done before."""


class OpenRequest:
    """One request between its arrival and its end."""

    __slots__ = (
        "arrived_at",
        "audio",
        "cause",
        "client",
        "complete",
        "delivered",
        "dispatched",
        "encoding",
        "ended_at",
        "ending",
        "error_event",
        "exchange",
        "external_request_id",
        "failed",
        "finish_reasons",
        "model_name",
        "packets",
        "paths",
        "request_id",
        "requested_frame_rates",
        "requests",
        "stages",
        "stopped",
        "streamed_input",
        "streams",
        "trace_id",
        "utterance",
        "visual",
    )

    def __init__(
        self,
        requests: OpenRequests,
        request_id: str,
        model_name: str,
        arrived_at: float | None,
        streamed_input: StreamedInput | None = None,
    ) -> None:
        self.requests = requests
        self.request_id = request_id
        #: Under which its client knows it.
        self.external_request_id = ""
        self.client = UNKNOWN
        self.model_name = model_name
        self.arrived_at = arrived_at
        #: The trace that it is recorded in; None if it is in none.
        self.trace_id: str | None = None
        #: None if all of it was there at the arrival.
        self.streamed_input = streamed_input
        #: The engine marked an output as the request's last one.
        self.complete = False
        #: Whether any output, of any modality, left for the client.
        self.delivered = False
        #: A stage was given the request while it was open.
        self.dispatched = False
        #: Finish reasons that the delivered outputs state.
        self.finish_reasons: set[str] = set()
        #: Audio packets with something in them that left for the client.
        self.packets = 0
        self.stages: dict[int, StageWork] = {}
        self.paths = Paths()
        #: By stage, as are images and videos.
        self.audio: dict[int, AudioOutput] = {}
        self.visual: dict[int, VisualOutput] = {}
        #: What its listeners hear, where anybody asks for it.
        self.streams: dict[int, Stream] = {}
        self.exchange: Exchange | None = None  # where it can be seen
        #: What it is a part of for its listener.
        self.utterance: Utterance | None = None
        #: How ``generate`` was over, and when; None while it goes on.
        self.ending: Ending | None = None
        self.ended_at: float | None = None
        #: Of the exception that it raised.
        self.cause: Failure | None = None
        #: As :class:`Answered` says.
        self.failed = False
        self.error_event = self.stopped = False
        #: The endpoint that encodes its videos.
        self.encoding: Encoding | None = None
        #: Hz, by stage; they hold where the output states no rate itself.
        self.requested_frame_rates: Mapping[int, float] = {}

    def answers(self, exchange: Exchange) -> None:
        """The request ends with the client's response, whenever ``generate`` is over."""
        self.exchange = exchange
        exchange.attach(self)
        self.utterance = exchange.utterance
        if self.utterance is not None:
            self.utterance.begins(self.waited)

    def submitting(
        self, stage: int, delivery: Delivery | None, *, makes_audio: bool = False
    ) -> None:
        """The orchestrator is about to give the request to a replica of ``stage``."""
        if stage not in self.stages:
            self.stages[stage] = StageWork(time.monotonic(), delivery)
            if makes_audio and delivery in ("delta", "cumulative"):
                heard.begin(self, stage)

    def audio_output(
        self,
        payloads: Sequence[Mapping[str, Any]],
        stage: int,
        replica: int | None,
        *,
        finished: bool,
    ) -> None:
        """An output of an audio stage leaves for the client, with its multimodal payloads."""
        now = time.monotonic()
        waited = self._waited_until(now)
        during_input = self._is_during_input
        work = self.stages.get(stage)
        output = self.audio.get(stage)
        if output is None:
            output = self.audio[stage] = AudioOutput(work, finished=finished)
        samples = output.add(payloads, work, replica, waited, during_input=during_input)
        if samples == 0:
            if work is not None:
                work.output_at = None
                work.gave_nothing = True
            return
        if work is not None:
            work.gave_output = True
        if output.streamed:
            if self.packets == 0:
                self.paths.packet_leaves(stage, work, now, waited)
            heard.packet(self, stage, now, samples, output.sample_rate, payloads)
        packet = self.requests.hooks.omni_media_packet
        if packet.listeners:
            packet(
                MediaPacket(
                    request_id=self.request_id,
                    model_name=self.model_name,
                    modality="audio",
                    index=self.packets,
                    samples=samples,
                    sample_rate=output.sample_rate,
                    stage=stage,
                    replica=output.replica,
                    left_at=now,
                    since_arrival_seconds=waited,
                    streamed=output.streamed,
                    during_input=during_input,
                    trace_id=self.trace_id,
                )
            )
        self.packets += 1

    def visual_output(
        self,
        content: Any,
        payload: Mapping[str, Any],
        stage: int,
        replica: int | None,
        *,
        is_video: bool | None,
        frames_in_file: Callable[[bytes], int | None],
    ) -> None:
        """An output of an image or video stage leaves for the client.

        ``content`` are the images or videos themselves, ``payload`` the multimodal output beside
        them. ``is_video`` is None where the engine does not say; the endpoint that asked for it
        knows best.
        """
        output = self.visual.get(stage)
        if output is None:
            output = self.visual[stage] = VisualOutput()
        if replica is not None:
            output.replica = replica
        now = time.monotonic()
        waited = self._waited_until(now)
        output.add(
            content,
            payload,
            waited,
            is_video=True if current_encoding() is not None else is_video,
            frames_in_file=frames_in_file,
        )
        if output.first_seconds is not None:
            self.paths.packet_leaves(stage, self.stages.get(stage), now, waited)

    def end(
        self,
        error: BaseException | None,
        *,
        requested_frame_rates: Mapping[int, float] | None = None,
    ) -> None:
        """``generate`` is over: by itself, or because ``error`` was raised in or into it.

        ``requested_frame_rates`` in Hz, by stage, hold where the output states no rate itself.
        """
        if self.ending is not None:
            return
        self.ending = ending_of(error)
        self.cause = cause_of(error)
        self.ended_at = time.monotonic()
        self.encoding = current_encoding()
        self.requested_frame_rates = requested_frame_rates or {}
        if self.exchange is None:
            self.settle()
        else:
            self.exchange.generated(self)

    def settle(self) -> None:
        """The outcome is certain: the events of the end, once."""
        if not self.requests.close(self):
            return
        ended_at = time.monotonic() if self.ended_at is None else self.ended_at
        # The orchestrator's thread may still add a stage.
        stages = list(self.stages.values())
        reasons = self.finish_reasons.union(*(work.finish_reasons for work in stages))
        outcome = outcome_of(
            self.ending,
            self.exchange,
            failed=self.failed,
            stopped=self.stopped,
            complete=self.complete,
            delivered=self.delivered,
            finish_reasons=reasons,
        )
        failure = failure_of(
            outcome,
            self.ending,
            self.cause,
            self.exchange,
            failed=self.failed,
            stopped=self.stopped,
            delivered=self.delivered,
            finish_reasons=reasons,
        )
        status = self.exchange.status if self.exchange is not None else None
        self.exchange = None
        requests = self.requests
        ended = heard.finish(self, outcome)
        requests.executions.closed(self, ended_at, {*self.audio, *self.visual})
        audio: Sequence[AudioFinished] = ()
        visual: Sequence[ImageFinished | VideoFinished] = ()
        if outcome not in CUT_SHORT:
            audio = self._finish_audio()
            visual = self._finish_visual()
        hooks, event = requests.hooks, None
        if hooks.omni_request_finished.listeners or requests.judge is not None:
            event = self._finished(outcome, failure, status, ended_at, audio, visual)
        elif not hooks.omni_stream_finished.listeners:
            return
        if are_looked_at(ended):
            tell(hooks, requests.judge, ended, event)
        else:
            requests.background.put(partial(tell, hooks, requests.judge, ended, event))

    def _finished(
        self,
        outcome: str,
        failure: Failure | None,
        status: int | None,
        ended_at: float,
        audio: Sequence[AudioFinished],
        visual: Sequence[ImageFinished | VideoFinished],
    ) -> RequestFinished:
        """The event of the end, without what its listener heard and the verdicts."""
        works, waited = dict(self.stages), self._waited_until(ended_at)
        starts = [work.started_at for work in works.values() if work.started_at is not None]
        whole = () if outcome in CUT_SHORT else self.paths.to_end(ended_at, waited, works)
        return RequestFinished(
            request_id=self.request_id,
            model_name=self.model_name,
            outcome=outcome,
            end_to_end_seconds=waited,
            queue_seconds=self._queued_until(min(starts)) if starts else None,
            dispatched=self.dispatched,
            started=any(work.started or work.ended for work in works.values()),
            during_input=self._is_during_input,
            first_packet_path=self.paths.to_first_packet(works),
            critical_path=whole,
            failure=failure,
            trace_id=self.trace_id,
            external_request_id=self.external_request_id,
            endpoint=self.client.endpoint,
            transport=self.client.transport,
            arrived_at=self.arrived_at,
            status=status,
            stages=tuple([works[stage].summary(stage) for stage in sorted(works)]),
            packets=self.packets,
            audio=tuple(audio),
            images=tuple([made for made in visual if isinstance(made, ImageFinished)]),
            videos=tuple([made for made in visual if isinstance(made, VideoFinished)]),
            headers=self.client.headers,
        )

    @property
    def _is_during_input(self) -> bool:
        return self.streamed_input is not None and self.streamed_input.ended_at is None

    def _waited_until(self, moment: float) -> float | None:
        """How long the client has waited; while it still sends its input, it does not."""
        since = self._waits_since
        return None if since is None else moment - since

    @property
    def waited(self) -> Waited:
        """Since when its client waits."""
        return Waited(self._waits_since, during_input=self.streamed_input is not None)

    @property
    def _waits_since(self) -> float | None:
        return self.arrived_at if self.streamed_input is None else self.streamed_input.ended_at

    def _queued_until(self, moment: float) -> float | None:
        """How long a stage could have had it: of a streamed input, from the first piece on."""
        since = self.arrived_at if self.streamed_input is None else self.streamed_input.began_at
        return None if since is None else moment - since

    def replica(self, stage: int) -> int | None:
        """As its output says, or else as it was placed."""
        output, work = self.audio.get(stage), self.stages.get(stage)
        replica = output.replica if output is not None else None
        return work.replica if replica is None and work is not None else replica

    def _finish_audio(self) -> list[AudioFinished]:
        """Tell of it; returns what was told, or would be to whoever asks for the whole request."""
        hooks = self.requests.hooks
        finished = hooks.omni_audio_finished
        events = []
        if finished.listeners or hooks.omni_request_finished.listeners:
            for stage, output in self.audio.items():
                work = self.stages.get(stage)
                event = output.finished(self.request_id, self.model_name, stage, work)
                events.append(event)
                if finished.listeners:
                    finished(event)
        return events

    def _finish_visual(self) -> list[ImageFinished | VideoFinished]:
        """As of audio, but for videos whose frame rate is said later."""
        events = [
            output.finish(
                self.requests.hooks,
                self.request_id,
                self.model_name,
                stage,
                self.stages.get(stage),
                requested=self.requested_frame_rates.get(stage),
                encoding=self.encoding,
            )
            for stage, output in self.visual.items()
        ]
        return [event for event in events if event is not None]

"""The audio that one stage has delivered for a request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from vllm_omni_metrics_plugin.hooks import AudioFinished
from vllm_omni_metrics_plugin.media.audio import count_samples, find_sample_rate
from vllm_omni_metrics_plugin.requests.work import StageWork


class AudioOutput:
    """Counts samples per channel; keeps no sound."""

    __slots__ = (
        "during_input",
        "first_packet_seconds",
        "replica",
        "sample_rate",
        "samples",
        "streamed",
    )

    def __init__(self, work: StageWork | None, *, finished: bool) -> None:
        """``finished``: the stage's first output is its last one."""
        delivery = work.delivery if work else None
        # Stages without a delivery mode, such as diffusion, stream only if they send parts.
        self.streamed = delivery in ("delta", "cumulative") or (delivery is None and not finished)
        self.samples = 0
        #: Hz, as the output states it.
        self.sample_rate: int | None = None
        self.replica: int | None = None
        self.first_packet_seconds: float | None = None
        #: The first packet left while the client was still sending its input.
        self.during_input = False

    def add(
        self,
        payloads: Iterable[Mapping[str, Any]],
        work: StageWork | None,
        replica: int | None,
        waited_seconds: float | None,
        *,
        during_input: bool = False,
    ) -> int:
        """Take an output's multimodal payloads in; returns how many of their samples are new."""
        if replica is None and work is not None:
            replica = work.replica
        if replica is not None:
            self.replica = replica
        samples = 0
        for payload in payloads:
            samples += count_samples(payload) or 0
            self.sample_rate = find_sample_rate(payload) or self.sample_rate
        if work is not None and work.delivery == "cumulative" and samples >= self.samples:
            samples -= self.samples
        if samples and not self.samples:
            self.during_input = during_input
            if self.streamed:
                self.first_packet_seconds = waited_seconds
        self.samples += samples
        return samples

    @property
    def duration_seconds(self) -> float | None:
        if not self.samples or self.sample_rate is None:
            return None
        return self.samples / self.sample_rate

    def finished(
        self, request_id: str, model_name: str, stage: int, work: StageWork | None
    ) -> AudioFinished:
        """The event of its end."""
        return AudioFinished(
            request_id=request_id,
            model_name=model_name,
            stage=stage,
            replica=self.replica,
            samples=self.samples,
            sample_rate=self.sample_rate,
            duration_seconds=self.duration_seconds,
            generation_seconds=work.generation_seconds if work else None,
            first_packet_seconds=self.first_packet_seconds,
            streamed=self.streamed,
            during_input=self.during_input,
        )

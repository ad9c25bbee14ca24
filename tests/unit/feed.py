"""Events fed to hooks, one method for each; what a test does not say is an ordinary value."""

from __future__ import annotations

from typing import Any

from vllm_omni_metrics_plugin.hooks import (
    AudioFinished,
    Demand,
    DiffusionWork,
    Event,
    ImageFinished,
    KvWaited,
    MediaPacket,
    PatchReported,
    RequestArrived,
    RequestFinished,
    RequestJudged,
    StageEnded,
    StageFinished,
    StageStarted,
    StageSubmitted,
    StreamFinished,
    TransferFailed,
    TransferReceived,
    TransferSent,
    VideoFinished,
)
from vllm_omni_metrics_plugin.requests.end import Judge, tell
from vllm_omni_metrics_plugin.testing import EVENTS, make_event

WORK = DiffusionWork(
    steps=20,
    preprocess_seconds=0.001,
    exec_seconds=0.75,
    postprocess_seconds=0.02,
    step_seconds=0.775,
    text_encode_seconds=0.0625,
    denoise_seconds=0.5,
    vae_decode_seconds=0.125,
    peak_memory_bytes=2**30,
)
_HOOKS = {kind: name for name, kind in EVENTS.items()}
#: The replica that makes everything, and the edge that leads to it.
_REPLICA: dict[str, Any] = {"request_id": "a", "model_name": "tiny", "stage": 1, "replica": 3}
_EDGE: dict[str, Any] = {"model_name": "tiny", "from_stage": 0, "to_stage": 1}


class Feed:
    """Calls the hooks of a test."""

    def __init__(self, hooks: Any) -> None:
        self._hooks = hooks
        #: Judges each request at its end, as a server's would.
        self.judged_by: Judge | None = None
        self._waiting: set[str] = set()
        self._running: set[str] = set()
        self._started: set[str] = set()

    def event(self, event: Event) -> None:
        getattr(self._hooks, _HOOKS[type(event)])(event)

    def arrive(self, request_id: str = "a") -> None:
        self._waiting.add(request_id)
        self.event(make_event(RequestArrived, request_id=request_id, model_name="tiny"))

    def submit(
        self, request_id: str = "a", stage: int = 0, demands: tuple[Demand, ...] = ()
    ) -> None:
        first = request_id in self._waiting
        if first:
            self._waiting.remove(request_id)
            self._running.add(request_id)
        self.event(
            make_event(
                StageSubmitted,
                request_id=request_id,
                stage=stage,
                replica=0,
                model_name="tiny",
                first=first,
                demands=demands,
            )
        )

    def start(self, request_id: str = "a", stage: int = 0, **changes: Any) -> None:
        self._started.add(request_id)
        usual = {
            **{"request_id": request_id, "stage": stage, "replica": 0, "model_name": "tiny"},
            **{"submitted_at": 100.0, "started_at": 100.25},
        }
        self.event(make_event(StageStarted, **usual | changes))

    def finish_stream(self, **changes: Any) -> None:
        self.event(make_event(StreamFinished, **_REPLICA | changes))

    def end(self, request_id: str = "a", stage: int = 0, **changes: Any) -> None:
        usual = {
            **{"request_id": request_id, "stage": stage, "replica": 0, "model_name": "tiny"},
            **{"started_at": 100.25, "ended_at": 102.25},
        }
        self.event(make_event(StageEnded, **usual | changes))

    def finish(
        self,
        request_id: str = "a",
        outcome: str = "stop",
        seconds: float | None = 2.0,
        queue_seconds: float | None = 0.5,
        **changes: Any,
    ) -> None:
        dispatched = request_id in self._running
        started = request_id in self._started
        self._running.discard(request_id)
        self._started.discard(request_id)
        self._waiting.discard(request_id)
        event = make_event(
            RequestFinished,
            dispatched=dispatched,
            started=started,
            request_id=request_id,
            model_name="tiny",
            outcome=outcome,
            end_to_end_seconds=seconds,
            queue_seconds=queue_seconds,
            **changes,
        )
        tell(self._hooks, self.judged_by, (), event)

    def judge(self, **changes: Any) -> None:
        usual = {"request_id": "a", "model_name": "tiny"}
        self.event(make_event(RequestJudged, **usual | changes))

    def packet(self, **changes: Any) -> None:
        usual = {**_REPLICA, "samples": 480, "since_arrival_seconds": 0.25}
        self.event(make_event(MediaPacket, **usual | changes))

    def finish_audio(self, **changes: Any) -> None:
        usual = {**_REPLICA, "samples": 48000, "generation_seconds": 1.5}
        self.event(make_event(AudioFinished, **usual | changes))

    def finish_image(self, **changes: Any) -> None:
        usual = {
            **_REPLICA,
            "images": 2,
            "pixels": (65536, 1048576),
            "first_image_seconds": 1.5,
            "generation_seconds": 1.25,
            "diffusion": WORK,
        }
        self.event(make_event(ImageFinished, **usual | changes))

    def finish_video(self, **changes: Any) -> None:
        usual = {
            **_REPLICA,
            "frames": 48,
            "frame_rate": 16.0,
            "duration_seconds": 3.0,
            "first_video_seconds": 13.0,
            "generation_seconds": 12.0,
            "diffusion": WORK,
        }
        self.event(make_event(VideoFinished, **usual | changes))

    def finish_stage(self, **changes: Any) -> None:
        usual = {**_REPLICA, "generation_seconds": 1.25, "diffusion": WORK}
        self.event(make_event(StageFinished, **usual | changes))

    def report(self, status: Any, name: str = "generate", reason: str = "") -> None:
        target = "engine:Class.method"
        self.event(
            make_event(PatchReported, name=name, target=target, status=status, reason=reason)
        )

    def send(self, **changes: Any) -> None:
        usual = {
            **_EDGE,
            "from_replica": 1,
            "to_replica": 3,
            "size_bytes": 300,
            "duration_seconds": 0.002,
        }
        self.event(make_event(TransferSent, **usual | changes))

    def receive(self, **changes: Any) -> None:
        usual = {
            **_EDGE,
            "from_replica": 1,
            "to_replica": 3,
            "duration_seconds": 0.003,
            "in_flight_seconds": 0.25,
        }
        self.event(make_event(TransferReceived, **usual | changes))

    def wait_for_connector(self, **changes: Any) -> None:
        usual = {**_REPLICA, "connector": "SharedMemoryConnector", "wait_seconds": 0.0625}
        self.event(make_event(KvWaited, **usual | changes))

    def fail(self, **changes: Any) -> None:
        usual = {**_EDGE, "operation": "receive", "replica": 3, "reason": "OSError"}
        self.event(make_event(TransferFailed, **usual | changes))

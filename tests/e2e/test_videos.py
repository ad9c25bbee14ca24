"""Videos on two real diffusion engines: every number against the frames that the client decodes."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest

from testbed.clients import visual
from testbed.clients.audio import together
from testbed.server import Server
from tests.e2e.conftest import assert_times_agree, observing, outcomes
from vllm_omni_metrics_plugin.scrape import Scrape

TIMINGS = ("diffusion_exec_time_ms", "diffusion_postprocess_time_ms", "diffusion_step_time_ms")
#: The families that have one sample for each request that got its video.
ONCE = (
    *("video_generation_time_seconds", "video_duration_seconds", "video_rtf", *TIMINGS),
    "num_inference_steps",
)


@pytest.fixture(scope="module", autouse=True)
def warm(video_server: Server) -> None:
    """The very first request of each replica pays for things that no later one does."""
    for _ in range(2):
        visual.video(video_server.url)


def counted(gained: Scrape, **labels: str) -> dict[str, float]:
    return {
        "frames": gained.sum("vllm:omni_video_frames_total", **labels),
        "steps": gained.sum("vllm:omni_diffusion_steps_total", **labels),
        **{family: gained.sum(f"vllm:omni_{family}_count", **labels) for family in ONCE},
        "images": gained.sum("vllm:omni_image_num_total", **labels),
        "missing": gained.sum("vllm:omni_metrics_missing_samples_total"),
    }


NOTHING = dict.fromkeys(counted(Scrape()), 0)


def test_frames_and_playing_time_of_every_endpoint_are_the_clients(video_server: Server) -> None:
    url = video_server.url
    calls = [
        functools.partial(visual.video, url, steps=2),
        functools.partial(visual.video, url, frames=17, fps=None, size="96x64", steps=3),
        functools.partial(visual.video, url, frames=10, fps=12, steps=2),  # makes 9 frames
        functools.partial(visual.video, url, steps=2, extra_params={"preencode_mp4": True}),
        functools.partial(visual.video, url, steps=3, extra_params={"sample_solver": "euler"}),
        functools.partial(visual.video_job, url, frames=13, fps=16, steps=4),
        functools.partial(visual.video_stream, url, frames=5, fps=4, steps=2),
    ]
    with observing(video_server) as seen:
        answers = [*(call() for call in calls), *together(calls, at_once=3)]

    assert all(answer.status in (101, 200) and not answer.error for answer in answers), answers
    assert [answer.frames for answer in answers] == [9, 17, 9, 9, 9, 13, 5] * 2
    rates = [8, 24, 12, 8, 8, 16, 4] * 2
    assert [answer.frame_rate for answer in answers] == rates
    assert counted(seen.gained) == {
        "frames": sum(answer.frames for answer in answers),
        "steps": 2 * (2 + 3 + 2 + 2 + 3 + 4 + 2),
        **dict.fromkeys(ONCE, len(answers)),
        "images": 0,
        "missing": 0,
    }
    each = seen.gained.sum("vllm:omni_num_inference_steps_sum")
    assert each == seen.gained.sum("vllm:omni_diffusion_steps_total")
    for part in ("diffusion_text_encode", "diffusion_forward", "vae_decode"):
        count = seen.after.sum(f"vllm:omni_{part}_seconds_count")
        assert count == 0, "the engine does not profile its pipeline here"
    playing = seen.gained.sum("vllm:omni_video_duration_seconds_sum")
    assert playing == pytest.approx(sum(answer.video_seconds for answer in answers))
    assert outcomes(seen.gained) == {"stop": len(answers)}


def test_each_replica_counts_exactly_what_it_made(video_server: Server) -> None:
    # Requests one after the other alternate between the replicas.
    with observing(video_server) as seen:
        answers = [
            visual.video(video_server.url, frames=frames, steps=steps)
            for frames, steps in [(5, 2), (13, 3)] * 2
        ]

    assert [answer.frames for answer in answers] == [5, 13] * 2
    replicas = {replica: counted(seen.gained, stage="0", replica=replica) for replica in ("0", "1")}
    made = sorted((values["frames"], values["steps"]) for values in replicas.values())
    assert made == [(10, 4), (26, 6)], replicas
    for values in replicas.values():
        assert [values[family] for family in ONCE] == [2] * len(ONCE), replicas


def test_times_of_each_request_are_the_clients(video_server: Server) -> None:
    def measure() -> list[tuple[float, float]]:
        with observing(video_server) as seen:
            answer = visual.video(video_server.url, frames=17, fps=4, size="96x96", steps=6)
        execution, _, step = (
            seen.gained.sum(f"vllm:omni_{family}_sum") / 1000 for family in TIMINGS
        )
        generation = seen.gained.sum("vllm:omni_video_generation_time_seconds_sum")
        end_to_end = seen.gained.sum("vllm:omni_e2e_request_latency_seconds_sum")
        assert 0 < execution < step < generation < end_to_end < answer.total_seconds
        factor = seen.gained.sum("vllm:omni_video_rtf_sum")
        assert factor == pytest.approx(generation / answer.video_seconds)
        # Encoding comes after the engine's end; the client waits for it as well.
        return [(answer.total_seconds, end_to_end)]

    assert_times_agree(measure, apart_seconds=0.06)


def test_cancelled_job_has_its_outcome_counted_alone(video_server: Server) -> None:
    with observing(video_server) as seen:
        cancelled = visual.video_job(
            video_server.url, frames=33, size="128x128", steps=200, cancel=True
        )
        # Each engine has to be done with what it has before it comes to these.
        after = [visual.video(video_server.url, frames=5, steps=2) for _ in range(2)]

    assert cancelled.cancelled, cancelled
    assert [answer.status for answer in (cancelled, *after)] == [200] * 3
    assert outcomes(seen.gained) == {"abort": 1, "stop": 2}
    assert counted(seen.gained) == {
        "frames": 10,
        "steps": 4,
        **dict.fromkeys(ONCE, 2),
        "images": 0,
        "missing": 0,
    }


@pytest.mark.parametrize("ask", [visual.video, visual.video_job])
def test_generation_that_fails_has_its_outcome_counted_alone(
    video_server: Server, ask: Callable[..., visual.Answer]
) -> None:
    with observing(video_server) as seen:
        answer = ask(video_server.url, lora={"name": "none", "path": "/there/is/no/such/adapter"})

    assert answer.error, answer
    assert answer.frames == 0
    assert outcomes(seen.gained) == {"error": 1}
    assert counted(seen.gained) == NOTHING

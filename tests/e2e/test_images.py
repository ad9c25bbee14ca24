"""Images on a real diffusion engine: every number against what the client finds in the files."""

from __future__ import annotations

import functools
import http.client
import itertools
import json
import time

import pytest

from testbed.clients import visual
from testbed.clients.audio import together
from testbed.server import Server
from tests.e2e.backlog import assert_queue_takes_what_the_backlog_says
from tests.e2e.conftest import (
    OF_SESSIONS,
    Series,
    assert_times_agree,
    is_idle,
    observing,
    outcomes,
    series,
    settled,
    watching,
)
from vllm_omni_metrics_plugin.scrape import Scrape, scrape

TIMINGS = ("diffusion_exec_time_ms", "diffusion_postprocess_time_ms", "diffusion_step_time_ms")
#: The families that have one sample for each request that got its images.
ONCE = (
    *("image_ttfp_seconds", "image_generation_time_seconds", *TIMINGS),
    *("num_inference_steps", "diffusion_forward_seconds", "denoise_step_latency_seconds"),
    *("diffusion_text_encode_seconds", "vae_decode_seconds"),
)


@pytest.fixture(scope="module", autouse=True)
def fresh(image_server: Server) -> Scrape:
    """What the server says before its first request, which pays for things that no later one does.

    That one is made here.
    """
    page = scrape(image_server.url)
    visual.images(image_server.url)
    return page


def counted(gained: Scrape) -> dict[str, float]:
    return {
        "images": gained.sum("vllm:omni_image_num_total"),
        "sized": gained.sum("vllm:omni_image_pixels_count"),
        "pixels": gained.sum("vllm:omni_image_pixels_sum"),
        "steps": gained.sum("vllm:omni_diffusion_steps_total"),
        **{family: gained.sum(f"vllm:omni_{family}_count") for family in ONCE},
        "missing": gained.sum("vllm:omni_metrics_missing_samples_total"),
    }


NOTHING = dict.fromkeys(counted(Scrape()), 0)


def test_images_pixels_and_steps_of_every_endpoint_are_the_clients(image_server: Server) -> None:
    url = image_server.url
    calls = [
        functools.partial(visual.images, url, steps=2),
        functools.partial(visual.images, url, n=3, size="128x96", steps=3),
        functools.partial(visual.images, url, size="250x130", steps=4),  # makes 240x128
        functools.partial(visual.images, url, size="64x128", steps=2, negative_prompt="blue"),
        functools.partial(visual.edit, url, n=2, size=(64, 96), steps=3),
        functools.partial(visual.chat, url, n=2, size="96x64", steps=2),
    ]
    with observing(image_server) as seen:
        answers = [call() for call in calls]
        answers += together(calls, at_once=3)

    assert all(answer.status == 200 for answer in answers), answers
    made = [len(answer.sizes) for answer in answers]
    assert made == [1, 3, 1, 1, 2, 2] * 2
    requests = len(answers)
    assert counted(seen.gained) == {
        "images": sum(made),
        "sized": sum(made),
        "pixels": sum(answer.pixels for answer in answers),
        "steps": 2 * (2 + 3 + 4 + 2 + 3 + 2),
        **dict.fromkeys(ONCE, requests),
        "missing": 0,
    }
    assert outcomes(seen.gained) == {"stop": requests}


def test_each_image_falls_into_the_bucket_of_its_size(image_server: Server) -> None:
    with observing(image_server) as seen:
        answers = [visual.images(image_server.url, n=2, size=s) for s in ("256x256", "512x256")]

    assert [answer.sizes for answer in answers] == [((256, 256),) * 2, ((512, 256),) * 2]
    labels = {"model_name": image_server.model, "stage": "0", "replica": "0"}
    for bound, images in (("65536.0", 2), ("131072.0", 4), ("+Inf", 4)):
        bucket = seen.gained.value("vllm:omni_image_pixels_bucket", **labels, le=bound)
        assert bucket == images, bound


def test_times_of_each_request_are_the_clients(image_server: Server) -> None:
    def measure() -> list[tuple[float, float]]:
        with observing(image_server) as seen:
            answer = visual.images(image_server.url, size="128x128", steps=6)
        execution, _, step = (
            seen.gained.sum(f"vllm:omni_{family}_sum") / 1000 for family in TIMINGS
        )
        generation = seen.gained.sum("vllm:omni_image_generation_time_seconds_sum")
        first = seen.gained.sum("vllm:omni_image_ttfp_seconds_sum")
        assert 0 < execution < step < generation < first < answer.total_seconds
        return [(answer.total_seconds, first)]

    assert_times_agree(measure)


PARTS = {
    "diffusion_text_encode_seconds": ".text_encoder.forward",
    "diffusion_forward_seconds": ".diffuse",
    "vae_decode_seconds": ".vae.decode",
}


def test_parts_and_peak_of_a_request_are_those_that_its_client_is_told(
    image_server: Server,
) -> None:
    body = {"prompt": "x", "size": "128x64", "num_inference_steps": 5, "seed": 1}
    connection = http.client.HTTPConnection(image_server.url.removeprefix("http://"), timeout=60)
    before = scrape(image_server.url).sum("vllm:omni_peak_memory_bytes")
    with observing(image_server) as seen:
        connection.request(
            "POST", "/v1/images/generations", json.dumps(body), {"content-type": "application/json"}
        )
        told = json.loads(connection.getresponse().read())["metrics"]
    connection.close()
    gained = seen.gained

    print(told)
    parts: dict[str, float] = {
        family: sum(s for name, s in told["stage_durations"].items() if name.endswith(end))
        for family, end in PARTS.items()
    }
    assert all(parts.values()), told
    parts["denoise_step_latency_seconds"] = parts["diffusion_forward_seconds"] / 5
    for family, seconds in parts.items():
        assert gained.sum(f"vllm:omni_{family}_count") == 1, family
        assert gained.sum(f"vllm:omni_{family}_sum") == pytest.approx(seconds, abs=1e-6), family
    whole = gained.sum("vllm:omni_diffusion_exec_time_ms_sum") / 1000
    assert sum(parts[family] for family in PARTS) < whole
    assert gained.sum("vllm:omni_num_inference_steps_sum") == 5
    assert gained.sum("vllm:omni_num_inference_steps_count") == 1
    # What the platform says; the one of the test bed says the memory of the process.
    peak = round(told["peak_memory_mb"] * 2**20)
    assert peak > 0
    assert seen.after.sum("vllm:omni_peak_memory_bytes") == max(before, peak)


def test_client_who_leaves_gets_no_image_counted_and_no_time(image_server: Server) -> None:
    body = {"prompt": "x", "size": "256x256", "num_inference_steps": 200}
    connection = http.client.HTTPConnection(image_server.url.removeprefix("http://"), timeout=60)
    with observing(image_server) as seen:
        connection.request(
            "POST",
            "/v1/images/generations",
            json.dumps(body),
            {"content-type": "application/json"},
        )
        settled(image_server, lambda now: now.sum("vllm:omni_num_requests_running") == 1)
        connection.close()
        left = settled(image_server, lambda now: not now.sum("vllm:omni_num_requests_running"), 2.0)
        settled(image_server, is_idle)
        # The engine has to be done with the other one before it comes to this.
        after = visual.images(image_server.url, n=2, steps=2)

    assert after.status == 200, after
    assert outcomes(seen.gained) == {"abort": 1, "stop": 1}
    assert left.sum("vllm:omni_num_requests_running") == 0
    assert left.sum("vllm:omni_num_requests_waiting") == 0
    assert left.sum("vllm:omni_stage_requests_running") == 1, "the engine goes on for nobody"
    assert counted(seen.gained) == {
        "images": 2,
        "sized": 2,
        "pixels": after.pixels,
        "steps": 2,
        **dict.fromkeys(ONCE, 1),
        "missing": 0,
    }


def test_ten_images_of_an_engine_that_makes_one_at_a_time_are_one_running_and_nine_waiting(
    image_server: Server,
) -> None:
    count = 10
    paint = functools.partial(visual.images, image_server.url, size="128x128", steps=60)
    with observing(image_server) as seen, watching(image_server) as loads:
        began = time.monotonic()
        answers = together([paint] * count, at_once=count)
        took = time.monotonic() - began

    assert {answer.status for answer in answers} == {200}, answers
    full = [load for load in loads if load.whole.running + load.whole.waiting == count]
    assert full, "no scrape saw all of them"
    assert {(load.whole.running, load.whole.waiting) for load in full} <= {(1, 9), (0, 10)}
    for load in loads:
        assert load.whole.running <= 1, loads
        assert load.whole.running == load.stages["0", "0"].running, loads
        # One that is painted waits for its file to be written.
        assert load.whole.waiting - load.stages["0", "0"].waiting in (0, 1), loads
    for earlier, load in itertools.pairwise(loads):
        # A scrape reads its gauges first, so what ends while it goes on is among the ended only.
        assert load.whole.running + load.whole.waiting <= count - earlier.ended, (earlier, load)
    # Between one's end and the next one's start, for a moment, none executes.
    executing = [load.whole.running for load in loads if 0 < load.ended < count - 1]
    assert executing.count(1) > 0.8 * len(executing), loads

    gained, stage = seen.gained, {"stage": "0", "replica": "0"}
    times = {
        of: gained.sum(f"vllm:omni_stage_{of}_time_seconds_sum", **stage)
        for of in ("queue", "execute", "generation")
    }
    totals = [answer.total_seconds for answer in answers]
    print(times, sum(totals), took)
    assert times["queue"] + times["execute"] == pytest.approx(times["generation"], rel=0.02)
    # The client's own times: all of it is waiting and executing but for what HTTP takes.
    assert 0.8 * sum(totals) < times["generation"] < sum(totals)
    # One at a time: each waits for those before it.
    assert times["execute"] == pytest.approx(
        gained.sum("vllm:omni_stage_busy_seconds_total"), rel=0.02
    )
    assert 0.7 * took < times["execute"] < took
    queued = gained.sum("vllm:omni_request_queue_time_seconds_sum")
    assert times["queue"] <= queued < sum(totals)
    assert counted(gained)["missing"] == 0


def test_queue_of_sizes_and_steps_takes_what_the_backlog_says(
    image_server: Server, fresh: Scrape
) -> None:
    assert fresh.names("vllm:omni_stage_info")
    assert fresh.names("vllm:omni_backlog") == fresh.names("vllm:omni_stage_backlog") == set()
    mix = itertools.product(("64x64", "192x128", "256x256"), (2, 6, 12))
    assert_queue_takes_what_the_backlog_says(
        image_server,
        [
            functools.partial(visual.images, image_server.url, size=size, steps=steps)
            for size, steps in mix
        ],
    )


def test_request_that_fails_in_the_engine_has_its_outcome_counted_alone(
    image_server: Server,
) -> None:
    with observing(image_server) as seen:
        answer = visual.images(image_server.url, "x" * 9000)

    assert answer.status == 500, answer
    assert outcomes(seen.gained) == {"error": 1}
    assert counted(seen.gained) == NOTHING


def test_refused_request_is_not_counted(image_server: Server) -> None:
    with observing(image_server) as seen:
        answers = [
            visual.images(image_server.url, n=0),
            visual.images(image_server.url, size="round"),
            visual.images(image_server.url, model="another"),
        ]

    assert [answer.status for answer in answers] == [400, 400, 400], answers
    assert outcomes(seen.gained) == {}
    assert counted(seen.gained) == NOTHING


def test_nothing_of_the_plugin_is_in_the_answers(image_server: Server) -> None:
    body = {"prompt": "x", "size": "64x64", "num_inference_steps": 2, "return_stage_metrics": True}
    connection = http.client.HTTPConnection(image_server.url.removeprefix("http://"), timeout=60)
    connection.request(
        "POST", "/v1/images/generations", json.dumps(body), {"content-type": "application/json"}
    )
    answer = json.loads(connection.getresponse().read())
    connection.close()

    assert answer["metrics"]["stage_durations"]
    assert "omni_metrics" not in json.dumps(answer["metrics"])


def test_every_seam_is_reported_as_applied(image_server: Server) -> None:
    reported = {
        labels["patch"]: labels["status"]
        for labels in scrape(image_server.url).label_sets("vllm:omni_metrics_patch_info")
    }
    assert {"denoising", "denoising_stepwise", "video_endpoint"} <= set(reported)
    assert reported.pop("offline_batch") == "deferred", "a server never imports it"
    others = {patch: reported[patch] for patch in reported if not patch.startswith(OF_SESSIONS)}
    assert set(others.values()) == {"applied"}, reported


def test_model_goes_by_the_name_it_is_served_under(image_server: Server) -> None:
    seen = scrape(image_server.url)
    names = {
        labels["model_name"]
        for family in ("stage_info", "num_requests_running", "image_num_total")
        for labels in seen.label_sets(f"vllm:omni_{family}")
    }
    assert names == {image_server.model}


def test_series_after_all_that_was_painted_are_those_before_the_first_picture(
    image_server: Server, first_series: dict[str, set[Series]]
) -> None:
    assert series(settled(image_server, is_idle)) == first_series[image_server.url]

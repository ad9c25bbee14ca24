"""The part of ``make demo`` that is about images and videos."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from testbed.clients import visual
from testbed.clients.visual import Answer
from testbed.demo.rows import Row, gained_row, idle_rows, settled, table
from testbed.server import Server
from vllm_omni_metrics_plugin.scrape import Scrape

Ask = Callable[[], Answer]


def show(server: Server) -> list[Row]:
    """Ask, and compare /metrics with what is in the files that came back."""
    is_video = server.pipeline.name == "video"
    asks = _videos(server.url) if is_video else _images(server.url)
    for ask, _ in list(asks.values())[:2]:
        ask()  # a replica's first request pays for things that no later one does
    before = settled(server)
    answers = [_ask(title, ask) for title, (ask, _) in asks.items()]
    after = settled(server)
    steps = sum(
        count
        for answer, (_, count) in zip(answers, asks.values(), strict=True)
        if answer.status in (101, 200) and not answer.cancelled
    )
    rows = [*_compare(after - before, answers, steps, is_video), *idle_rows(after)]
    print(f"\n{table(rows)}\n")
    return rows


def _images(url: str) -> dict[str, tuple[Ask, int]]:
    """Each request, and the denoising steps that it asks for."""
    images = functools.partial(visual.images, url)
    return {
        "one image": (functools.partial(images, size="128x128", steps=4), 4),
        "three images": (functools.partial(images, n=3, size="128x96", steps=6), 6),
        "a larger one": (functools.partial(images, size="256x256", steps=8), 8),
        "a size that does not divide": (functools.partial(images, size="250x130", steps=4), 4),
        "an edit, two images": (functools.partial(visual.edit, url, n=2, steps=4), 4),
        "chat, two images": (functools.partial(visual.chat, url, n=2, steps=4), 4),
        "too long a text (fails)": (functools.partial(images, "x" * 9000), 0),
        "no image (refused)": (functools.partial(images, n=0), 0),
    }


def _videos(url: str) -> dict[str, tuple[Ask, int]]:
    video = functools.partial(visual.video, url)
    return {
        "8 frames a second": (functools.partial(video, frames=9, fps=8, steps=4), 4),
        "no word about the rate": (functools.partial(video, frames=17, fps=None, steps=4), 4),
        "larger": (functools.partial(video, size="128x96", frames=13, fps=16, steps=4), 4),
        "a job": (functools.partial(visual.video_job, url, frames=13, fps=12, steps=4), 4),
        "a stream": (functools.partial(visual.video_stream, url, frames=9, fps=4, steps=4), 4),
        "a job that is cancelled": (
            functools.partial(visual.video_job, url, steps=150, cancel=True),
            0,
        ),
        "no such adapter (fails)": (
            functools.partial(video, lora={"name": "none", "path": "/no/adapter"}),
            0,
        ),
    }


def _ask(title: str, ask: Ask) -> Answer:
    answer = ask()
    if answer.cancelled:
        got = "cancelled"
    elif answer.frames:
        got = f"{answer.frames} frames, {answer.video_seconds:.2f} s"
    else:
        got = ", ".join(f"{width}x{height}" for width, height in answer.sizes) or "nothing"
    print(f"  {title:<30} {answer.status}  {got}, after {answer.total_seconds:.2f} s", flush=True)
    return answer


def _compare(gained: Scrape, answers: Sequence[Answer], steps: int, is_video: bool) -> list[Row]:
    accepted = [answer for answer in answers if answer.accepted]
    served = [answer for answer in accepted if answer.sizes or answer.frames]
    row = functools.partial(gained_row, gained)
    rows = [
        row("requests_success_total", len(accepted)),
        row("e2e_request_latency_seconds count", len(served)),
        row("diffusion_exec_time_ms count", len(served)),
        row("diffusion_step_time_ms count", len(served)),
        row("diffusion_steps_total", steps),
    ]
    if is_video:
        rows += [
            row("video_frames_total", sum(answer.frames for answer in served)),
            row("video_duration_seconds count", len(served)),
            row("video_duration_seconds sum", sum(answer.video_seconds for answer in served)),
            row("video_rtf count", len(served)),
            row("video_generation_time_seconds count", len(served)),
        ]
    else:
        ends = [answer.total_seconds for answer in served]
        images = sum(len(answer.sizes) for answer in served)
        rows += [
            row("image_num_total", images),
            row("image_pixels count", images),
            row("image_pixels sum", sum(answer.pixels for answer in served)),
            row("image_ttfp_seconds count", len(served)),
            row("image_ttfp_seconds sum", sum(ends), apart=ends),
            row("image_generation_time_seconds count", len(served)),
        ]
    return [*rows, row("metrics_missing_samples_total", 0)]

"""Whether the backlog says how long a queue takes: arrivals stop, and clients wait for the end."""

from __future__ import annotations

import functools
import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from testbed.clients import audio, visual
from testbed.server import Server
from vllm_omni_metrics_plugin.scrape import Scrape, scrape

BACKLOG = "vllm:omni_backlog_seconds"
_ON = {"VLLM_OMNI_METRICS": "1"}
_POLL_SECONDS = 0.25
_ROUNDS = 3

Figure = tuple[str, float, str, str]
Ask = Callable[[], Any]


@dataclass(frozen=True)
class Drain:
    """A queue to which nothing is added any more."""

    #: What the server says is left when all requests are there.
    predicted_seconds: float
    #: From then on, until the client has the last answer.
    real_seconds: float
    #: Seconds since then, and what the server says.
    pages: tuple[tuple[float, Scrape], ...]

    @property
    def ratio(self) -> float:
        return self.predicted_seconds / self.real_seconds


class TooLateError(Exception):
    """Most of the queue was over when all of it could be seen."""


def drain(url: str, asks: Sequence[Ask]) -> Drain:
    """Ask everything at once of an idle server, then wait; raises :class:`TooLateError`."""
    ended = [0.0] * len(asks)

    def answer(number: int) -> None:
        status = asks[number]().status
        ended[number] = time.perf_counter()
        assert status == 200, status

    with ThreadPoolExecutor(len(asks)) as clients:
        answers = [clients.submit(answer, number) for number in range(len(asks))]
        began, page = time.perf_counter(), scrape(url)
        while _open(page) + sum(answer.done() for answer in answers) < len(asks):
            began, page = time.perf_counter(), scrape(url)
        pages = [(0.0, page)]
        while not all(answer.done() for answer in answers):
            time.sleep(_POLL_SECONDS)
            pages.append((time.perf_counter() - began, scrape(url)))
    for done in answers:
        done.result()
    if _open(page) <= len(asks) / 2:
        raise TooLateError(f"{_open(page):.0f} were left when the last of {len(asks)} came")
    return Drain(page.sum(BACKLOG), max(ended) - began, tuple(pages))


def images(url: str) -> list[Ask]:
    """Each size with each number of steps, in an order of its own."""
    mix = list(itertools.product(("64x64", "128x128", "256x256"), (2, 6, 12)))
    random.Random(1).shuffle(mix)
    return [
        functools.partial(visual.images, url, size=size, steps=steps) for size, steps in mix * 2
    ]


def texts(url: str) -> list[Ask]:
    """Short and long speeches."""
    lengths = [12, 40, 96] * 8
    random.Random(2).shuffle(lengths)
    return [
        functools.partial(audio.speech, url, "la " * (tokens // 4), tokens=tokens, stream="audio")
        for tokens in lengths
    ]


def figures() -> Iterator[Figure]:
    """(name, value, budget, how it was measured); servers are started for them."""
    for pipeline, asks in (("image", images), ("tts", texts)):
        print(f"starting a server of {pipeline}", flush=True)
        with Server(pipeline, env=_ON) as server:
            drain(server.url, asks(server.url))
            ratios = []
            for _ in range(_ROUNDS):
                seen = drain(server.url, asks(server.url))
                ratios.append(seen.ratio)
                print(
                    f"  {len(asks(server.url))} open: {seen.predicted_seconds:.2f} s predicted, "
                    f"{seen.real_seconds:.2f} s real"
                )
                print(*(f"{at:.1f}:{page.sum(BACKLOG):.2f}" for at, page in seen.pages))
        worst = max(ratios, key=lambda ratio: abs(ratio - 1))
        how = f"predicted over real, the worst of {_ROUNDS} mixed queues of the same kind"
        yield f"backlog_drain_{pipeline}", worst, "0.8 - 1.2", how


def _open(page: Scrape) -> float:
    return sum(page.sum(f"vllm:omni_num_requests_{which}") for which in ("running", "waiting"))


if __name__ == "__main__":
    for figure in figures():
        print(figure)

"""What clients ask of each kind of server: streams, whole answers, some to leave, some wrong."""

from __future__ import annotations

import functools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from testbed.clients import audio, sockets, visual
from testbed.clients.sessions import Session

#: How often, beside the others, and what.
Ask = tuple[float, Callable[[], object]]
#: Clients come one after the other over this share of the time, so that queues are seen to grow.
_COMING = 0.5
_THINKING_SECONDS = 0.4


def drive(asks: Sequence[Ask], seconds: float, clients: int) -> Counter[str]:
    """So many clients, each of whom asks one thing after the other at random, for so long.

    What went wrong is counted, by the first line that the client has of it.
    """
    began = time.monotonic()
    told: Counter[str] = Counter()

    def client(number: int) -> None:
        chance = random.Random(number)
        time.sleep(_COMING * seconds * number / clients)
        while time.monotonic() - began < seconds:
            weights = [weight for weight, _ in asks]
            (ask,) = chance.choices([ask for _, ask in asks], weights)
            told[_outcome(ask)] += 1
            time.sleep(chance.uniform(0, _THINKING_SECONDS))

    # Who interrupts all of this does not wait for their answers.
    threads = [
        threading.Thread(target=client, args=(number,), daemon=True) for number in range(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return told


def _outcome(ask: Callable[[], object]) -> str:
    try:
        ask()
    # Whatever a client raises, the others go on.
    except Exception as error:
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return "asked"


def speech(url: str, pauses: Path) -> list[Ask]:
    """Of a speech server that pauses as the file says."""
    speak = functools.partial(audio.speech, url)
    return [
        (6, functools.partial(speak, tokens=40, stream="audio")),
        (4, functools.partial(speak, tokens=90, stream="audio")),
        (3, functools.partial(speak, tokens=60, stream="sse")),
        (3, functools.partial(speak, tokens=30)),
        (2, functools.partial(sockets.speech, url, tokens=25)),
        (1, functools.partial(speak, tokens=250, stream="audio", hang_up_after_packets=2)),
        (1, functools.partial(speak, "")),
        (0.5, functools.partial(_stumble, pauses)),
    ]


def _stumble(pauses: Path) -> None:
    """A stage waits for a second, with some audio behind it: a listener hears a gap."""
    pauses.write_text("0 0 1.0")


def images(url: str) -> list[Ask]:
    draw = functools.partial(visual.images, url)
    return [
        (6, functools.partial(draw, size="128x128", steps=4)),
        (2, functools.partial(draw, n=3, size="128x96", steps=6)),
        (2, functools.partial(draw, size="256x256", steps=8)),
        (1, functools.partial(visual.edit, url, n=2, steps=4)),
        (1, functools.partial(visual.chat, url, n=2, steps=4)),
        (0.5, functools.partial(draw, "x" * 9000)),
        (0.5, functools.partial(draw, n=0)),
    ]


def videos(url: str) -> list[Ask]:
    film = functools.partial(visual.video, url)
    return [
        (4, functools.partial(film, frames=9, fps=8, steps=4)),
        (2, functools.partial(film, frames=17, fps=None, steps=4)),
        (2, functools.partial(film, size="128x96", frames=13, fps=16, steps=4)),
        (1, functools.partial(visual.video_job, url, frames=13, fps=12, steps=4)),
        (1, functools.partial(visual.video_stream, url, frames=9, fps=4, steps=4)),
        (0.5, functools.partial(visual.video_job, url, steps=150, cancel=True)),
    ]


def sessions(url: str) -> list[Ask]:
    return [
        (4, functools.partial(_committed, url)),
        (3, functools.partial(_interrupted, url)),
        (1, functools.partial(_written, url)),
        (0.5, functools.partial(_left, url)),
    ]


def _committed(url: str) -> None:
    """Two turns; the client says when it has spoken, and plays all that it hears."""
    with Session(url) as session:
        for count in (1, 2):
            session.speak()
            session.commit()
            session.acknowledge(session.done(count))


def _interrupted(url: str) -> None:
    """The server hears when the client has spoken, and that it speaks over the answer."""
    with Session(url, detects_voice=True) as session:
        session.speak()
        session.be_silent(1.0)
        session.acknowledge(session.audio(), 100)
        session.speak()
        session.be_silent(1.0)
        session.done(2)


def _written(url: str) -> None:
    with Session(url, modalities=("text",)) as session:
        session.ask()
        session.done()


def _left(url: str) -> None:
    with Session(url) as session:
        session.speak()
        session.commit()
        session.audio()
        session.hang_up()

#!/usr/bin/env python3
"""Wait until a vLLM-Omni server has no open request, and no longer than a deadline.

A preStop hook: Kubernetes runs it while it takes the pod out of the service, and ends the server
after it. Needs Python and nothing else. Ends with 0 when the server was without a request for
so long that none comes any more, or is gone; with 1 at the deadline, and says how many are left.
"""

from __future__ import annotations

import argparse
import http.client
import signal
import sys
import time
import urllib.request
from typing import Any, NoReturn

FAMILIES = ("vllm:omni_num_requests_running", "vllm:omni_num_requests_waiting")


class DeadlineError(Exception):
    """The time is over, whatever is being done."""


class GoneError(Exception):
    """Nobody listens at the address any more."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Wait until a server has no open request, and no longer than a deadline."
    )
    parser.add_argument("--url", default="http://127.0.0.1:8000/metrics", help="%(default)s")
    parser.add_argument(
        "--seconds", type=positive, default=600.0, help="give up after so long: %(default)s"
    )
    parser.add_argument(
        "--quiet",
        type=positive,
        default=10.0,
        help="end after so many seconds without an open request: %(default)s; routers need a "
        "moment to learn that the pod leaves",
    )
    parser.add_argument(
        "--every", type=positive, default=1.0, help="seconds between two looks: %(default)s"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGALRM, over)
    # Again and again: an exception that falls into a destructor ends there.
    signal.setitimer(signal.ITIMER_REAL, options.seconds, 0.1)
    look = Look(options.url)
    try:
        wait(look, options.quiet, options.every)
    except DeadlineError:
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(f"drain: gave up after {options.seconds:g} s: {look.said}", file=sys.stderr)
        return 1
    except GoneError:
        print(f"drain: nobody listens at {options.url}", file=sys.stderr)
    return 0


class Look:
    """Reads how many requests are open, and keeps what it saw last in words."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.said = "the server has not answered"
        # The server is on this host, whatever proxy the environment names.
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

    def open_requests(self) -> float | None:
        """None if the server did not say; raises :class:`GoneError`."""
        try:
            with self._open(self._url) as answer:
                count = counted(answer.read().decode(errors="replace"))
        except (OSError, http.client.HTTPException, ValueError, IndexError) as error:
            if isinstance(getattr(error, "reason", error), ConnectionRefusedError):
                raise GoneError from None
            self.said = f"{self._url}: {error}"
            return None
        if count is None:
            self.said = f"{self._url} does not have {' and '.join(FAMILIES)}; is the plugin on?"
        else:
            self.said = f"{count:g} requests are open"
        return count


def wait(look: Look, quiet: float, every: float) -> None:
    """Return after ``quiet`` seconds in which every look saw no open request."""
    since: float | None = None
    while True:
        if look.open_requests() != 0:  # what is not known is not nothing
            since = None
        elif since is None:
            since = time.monotonic()
        elif time.monotonic() - since >= quiet:
            return
        time.sleep(every)


def counted(page: str) -> float | None:
    """Open requests of all models of a page; None if it lacks one of the families."""
    found = dict.fromkeys(FAMILIES, 0.0)
    missing = set(FAMILIES)
    for line in page.splitlines():
        for family in FAMILIES:
            if line.startswith((f"{family}{{", f"{family} ")):
                # A label's value may have spaces; a timestamp may follow the sample's.
                found[family] += float(line[len(family) :].rpartition("}")[2].split()[0])
                missing.discard(family)
    return None if missing else sum(found.values())


def positive(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds above 0")
    return seconds


def over(number: int, frame: Any) -> NoReturn:
    raise DeadlineError


if __name__ == "__main__":
    sys.exit(main())

"""``make kit``: real servers, a real Prometheus, and a page of each dashboard with their data."""

from __future__ import annotations

import argparse
import io
import json
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from PIL import Image

from testbed.kit import npm, rounds
from testbed.kit.boards import Window, shown
from testbed.kit.browser import Browser, BrowserError
from testbed.kit.page import Drawing, page
from testbed.paths import CACHE, ROOT
from testbed.prometheus import Prometheus, PrometheusFailedError, UnavailableError
from testbed.serve import start_visibly
from testbed.server import ServerFailedError
from vllm_omni_metrics_plugin.kit import DASHBOARDS

FOLDER = CACHE / "kit"
_WINDOWS = FOLDER / "windows.json"
_RULES = sorted((ROOT / "deploy" / "prometheus").glob("*-rules.yml"))
#: Of idle servers, before the traffic.
_QUIET_SECONDS = 8.0
_PIXELS = 1400
_COLOURS = 96


def main() -> int:
    parser = argparse.ArgumentParser(prog="make kit")
    parser.add_argument("--seconds", type=float, default=150.0, help="of traffic, in each round")
    parser.add_argument(
        "--again",
        action="store_true",
        help="draw what the last run left, without servers",
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    came_up: list[bool] = []
    try:
        drawing = _drawing()
        if not options.again:
            shutil.rmtree(FOLDER, ignore_errors=True)
        with Prometheus(FOLDER / "prometheus", rules=_RULES) as prometheus:
            if not options.again:
                came_up = [_watch(one, prometheus, options.seconds) for one in rounds.ROUNDS]
            pages = _pages(prometheus, drawing)
    except (UnavailableError, npm.UnavailableError, PrometheusFailedError) as reason:
        print(reason, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopping")
        return 130
    _pictures(pages)
    return 0 if all(came_up) else 1


def _drawing() -> Drawing:
    folder = npm.UPLOT.fetched() / "dist"
    return Drawing(
        (folder / "uPlot.iife.min.js").read_text(), (folder / "uPlot.min.css").read_text()
    )


def _watch(one: rounds.Round, prometheus: Prometheus, seconds: float) -> bool:
    """One round: its servers, their traffic, and when it was. Whether its servers came up."""
    folder = FOLDER / one.name
    folder.mkdir(parents=True)
    with ExitStack() as running:
        served = one.servers(folder)
        try:
            rounds.serve(served, start_visibly, running)
        except ServerFailedError as failure:
            print(failure, file=sys.stderr)
            return False
        for server, *_ in served:
            prometheus.watch(server.url)
        began = time.time()
        time.sleep(_QUIET_SECONDS)
        rounds.drive(served, seconds)
        windows = {**_windows(), **dict.fromkeys(one.boards, (began, time.time()))}
        _WINDOWS.write_text(json.dumps(windows))
        for server, *_ in served:
            prometheus.forget(server.url)
    return True


def _windows() -> Mapping[str, tuple[float, float]]:
    """Which time each dashboard is about, by name."""
    if not _WINDOWS.exists():
        return {}
    found: dict[str, tuple[float, float]] = json.loads(_WINDOWS.read_text())
    return found


def _pages(prometheus: Prometheus, drawing: Drawing) -> list[Path]:
    windows = _windows()
    pages = []
    for board in DASHBOARDS:
        if board.name not in windows:
            print(f"{board.name}: nothing was watched for it")
            continue
        path = FOLDER / f"{board.name}.html"
        path.write_text(page(shown(board, prometheus, Window(*windows[board.name])), drawing))
        print(path)
        pages.append(path)
    return pages


def _pictures(pages: list[Path]) -> None:
    """Beside each page, where there is a browser; the pages are there without one."""
    try:
        with Browser() as browser:
            for path in pages:
                picture = path.with_suffix(".png")
                with Image.open(io.BytesIO(browser.picture(path, _PIXELS))) as taken:
                    # A third of the bytes, and nothing that one sees.
                    taken.convert("RGB").quantize(_COLOURS).save(picture, optimize=True)
                print(picture)
    except (npm.UnavailableError, BrowserError) as reason:
        print(f"no pictures: {reason}")


if __name__ == "__main__":
    sys.exit(main())

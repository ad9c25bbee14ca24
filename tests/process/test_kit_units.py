"""How the pages of the dashboards write a value in its unit, as the script itself does."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from testbed.paths import TESTBED

SCRIPT = TESTBED / "kit" / "units.js"


def written(*values: tuple[float | None, str]) -> list[str]:
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node here, which runs the script")
    ask = f"console.log(JSON.stringify({json.dumps(values)}.map(([v, unit]) => inUnit(v, unit))))"
    done = subprocess.run(
        [node, "-e", SCRIPT.read_text() + ask], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    texts: list[str] = json.loads(done.stdout)
    return texts


def test_values_are_short_and_in_their_unit() -> None:
    expected: dict[tuple[float | None, str], str] = {
        (0, "s"): "0 s",
        (0.0000456, "s"): "45.6 µs",
        (0.0456, "s"): "45.6 ms",
        (1.2345, "s"): "1.23 s",
        (150, "s"): "2.5 min",
        (4.5, "ms"): "4.5 ms",
        (2500, "ms"): "2.5 s",
        (0.123456, "percentunit"): "12.3 %",
        (1, "percentunit"): "100 %",
        (2.5, "reqps"): "2.5 req/s",
        (1536, "bytes"): "1.5 KiB",
        (3 * 2**30, "bytes"): "3 GiB",
        (24000, "Bps"): "24 kB/s",
        (24000, "short"): "24 K",
        (9999, "short"): "10000",
        (1234567, "short"): "1.23 M",
        (0.75, "none"): "0.75",
        (None, "s"): "",
    }
    assert dict(zip(expected, written(*expected), strict=True)) == expected

"""The laws over time, from what a Prometheus remembers of servers.

All samples of one scrape have one time, so what it knows of a server at a moment is a page as the
server showed it.
"""

from __future__ import annotations

import json
import time
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vllm_omni_metrics_plugin import catalog
from vllm_omni_metrics_plugin.doctor.laws import LAWS, Broken, broken
from vllm_omni_metrics_plugin.doctor.names import restored
from vllm_omni_metrics_plugin.doctor.report import Finding
from vllm_omni_metrics_plugin.scrape import Access, NoAnswerError, Sample, Scrape, get

#: As long as most scrape intervals or longer, so that two pages are not the same one.
_EVERY_SECONDS = 60
#: Prometheus refuses to answer with more than 11,000 moments.
_MOST_PAGES = 10_000
_TIMEOUT_SECONDS = 60.0
#: Pages in a row to which the laws are held at once.
_AT_ONCE = 3

#: A server, as Prometheus names it.
Target = tuple[str, str]
Pages = list[tuple[float, Scrape]]


def judge(url: str, hours: float, access: Access | None = None) -> list[Finding]:
    """The laws that a server of the last ``hours`` broke; raises :class:`NoAnswerError`."""
    servers = pages(url, hours, access)
    if not servers:
        why = f"{url} knows no server with the plugin's families in the last {hours:g} h"
        return [Finding("broken", "prometheus", why)]
    return [finding for target, seen in servers.items() for finding in _judge_server(target, seen)]


def _judge_server(target: Target, seen: Pages) -> Iterator[Finding]:
    found: dict[tuple[str, tuple[str, ...]], list[tuple[float, Broken]]] = {}
    for row in _rows(seen):
        for law in broken([page for _, page in row]):
            key = (law.law.name, tuple(law.labels.values()))
            found.setdefault(key, []).append((row[-1][0], law))
    for (name, _), times in found.items():
        at, law = times[-1]
        clock = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))
        message = f"{' '.join(target)}: {law} (seen at {len(times)} moments, last at {clock})"
        yield Finding("degraded", f"law_{name}", message)


def _rows(seen: Pages) -> Iterator[Pages]:
    """Each page with those before and after it; all there are, if they are fewer."""
    for first in range(max(1, len(seen) - _AT_ONCE + 1)):
        yield seen[first : first + _AT_ONCE]


def pages(url: str, hours: float, access: Access | None = None) -> dict[Target, Pages]:
    """By server, what it showed, minute by minute, as far as the laws need it."""
    end = time.time()
    query = {
        "query": f'{{__name__=~"{"|".join(sorted(_names()))}"}}',
        "start": f"{end - 3600 * hours:.3f}",
        "end": f"{end:.3f}",
        "step": f"{max(_EVERY_SECONDS, 3600 * hours / _MOST_PAGES):.3f}",
    }
    address = f"{url.rstrip('/')}/api/v1/query_range?{urllib.parse.urlencode(query)}"
    samples: dict[Target, dict[float, list[Sample]]] = {}
    for series in _series(address, access):
        labels = dict(series["metric"])
        name = restored(labels.pop("__name__"))
        target = (labels.pop("job", ""), labels.pop("instance", ""))
        for at, value in series["values"]:
            of_server = samples.setdefault(target, {})
            of_server.setdefault(float(at), []).append(Sample(name, labels, float(value)))
    return {
        target: [(at, Scrape(found)) for at, found in sorted(times.items())]
        for target, times in sorted(samples.items())
    }


def _names() -> set[str]:
    """Of all samples that the laws need, with colons or without."""
    return {
        part.sample.replace(":", "[:_]")
        for law in LAWS
        for side in (law.left, law.right)
        for part in side.parts
    } | {f"{catalog.PREFIX}num_requests_(running|waiting)".replace(":", "[:_]")}


def _series(address: str, access: Access | None) -> Sequence[Mapping[str, Any]]:
    text = get(address, _TIMEOUT_SECONDS, access)
    try:
        found: Sequence[Mapping[str, Any]] = json.loads(text)["data"]["result"]
    except (ValueError, KeyError, TypeError):
        where = address.partition("?")[0]
        raise NoAnswerError(f"{where} does not answer as a Prometheus does") from None
    return found

"""What a scraper asks for: the format by its Accept header, and whether to compress."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple
from urllib.parse import parse_qs

Format = Literal["text", "openmetrics"]

CONTENT_TYPES: dict[Format, str] = {
    "text": "text/plain; version=0.0.4; charset=utf-8",
    "openmetrics": "application/openmetrics-text; version=1.0.0; charset=utf-8",
}
#: Who asks for the version before 1.0.0 reads that, too.
_OPENMETRICS_VERSIONS = ("", "0.0.1", "1.0.0")


class Wish(NamedTuple):
    """What somebody asks for; who wishes the same can be given the same."""

    format: Format = "text"
    gzip: bool = False
    #: The samples to show, by name; none says all.
    names: tuple[str, ...] = ()


def preferred(accept: str) -> Format:
    """The format that an Accept header likes best, the first of several; text if it names none."""
    best: Format = "text"
    best_weight = 0.0
    for kind, parameters, weight in _offers(accept):
        if weight <= best_weight:
            continue
        if kind == "application/openmetrics-text":
            if parameters.get("version", "") in _OPENMETRICS_VERSIONS:
                best, best_weight = "openmetrics", weight
        elif kind in ("text/plain", "text/*", "*/*"):
            best, best_weight = "text", weight
    return best


def takes_gzip(accept_encoding: str) -> bool:
    """Whether an Accept-Encoding header has it."""
    return any(kind == "gzip" and weight > 0 for kind, _, weight in _offers(accept_encoding))


def _offers(header: str) -> Iterator[tuple[str, dict[str, str], float]]:
    """Kind, parameters and weight of each; what cannot be read as a weight says nothing."""
    for offer in header.split(","):
        kind, *rest = (part.strip() for part in offer.split(";"))
        parameters = dict(_parameter(part) for part in rest)
        try:
            weight = float(parameters.get("q", "1"))
        except ValueError:
            weight = 1.0
        yield kind.lower(), parameters, weight


def _parameter(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name.strip().lower(), value.strip().strip('"')


def wish(accept: str, accept_encoding: str, query: str) -> Wish:
    """What a request asks for, by these headers and the query of its address."""
    names = parse_qs(query).get("name[]", ()) if query else ()
    return Wish(preferred(accept), takes_gzip(accept_encoding), tuple(names))

"""The operator's file of objectives, read and checked once.

What is wrong in it is said in one warning for each mistake, with the line, and leaves out one
objective; the others hold.
"""

from __future__ import annotations

import difflib
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from vllm_omni_metrics_plugin import catalog
from vllm_omni_metrics_plugin.objectives.objective import Objective
from vllm_omni_metrics_plugin.objectives.values import PER_REQUEST

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

VARIABLE = "VLLM_OMNI_METRICS_SLO"
MODALITIES = ("text", "audio", "image", "video")

_KEYS = ("name", "target", "modality", "streamed", "models", "limits")
_HEADER = re.compile(r"""^[ \t]*\[\[[ \t]*["']?objective["']?[ \t]*\]\]""", re.MULTILINE)
_NAME = re.compile(r"""^[ \t]*name[ \t]*=[ \t]*["']([^"'\n]+)["']""", re.MULTILINE)

Warn = Callable[[str], None]


class _Section(NamedTuple):
    """The text of one objective in the file, from its header to the next."""

    line: int
    text: str

    def line_of(self, key: str) -> int:
        """Where ``key`` is set; the header's line if it is not."""
        name = f"(?:{catalog.PREFIX})?{re.escape(key)}"
        sets = re.compile(rf"""(?<![\w:-])["']?{name}["']?\s*=""")
        for number, line in enumerate(self.text.splitlines(), self.line):
            if sets.search(line.partition("#")[0]):
                return number
        return self.line


class _Mistake(ValueError):
    """In one objective; ``key`` is what it is about."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def read(path: str, warn: Warn) -> tuple[Objective, ...]:
    """The objectives of a file; never raises on what is wrong in it."""
    named = f"{VARIABLE}={path!r}"
    try:
        if not Path(path).is_file():
            raise OSError("it is not a file")
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        warn(f"{named} cannot be read ({error}); nothing is judged")
        return ()
    sections = _sections(text)
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        if not sections:
            warn(f"{named} is not TOML ({error}); nothing is judged")
            return ()
        tables: list[tuple[Any, _Section | None]] = list(_each_by_itself(sections, named, warn))
    else:
        tables = _tables(content, sections, named, warn)
    objectives = _checked(tables, named, warn)
    if not objectives:
        warn(f"{named} has no [[objective]] that can be used; nothing is judged")
    return objectives


def with_bounds(
    buckets: Mapping[str, tuple[float, ...]], objectives: Iterable[Objective]
) -> dict[str, tuple[float, ...]]:
    """``buckets``, by family stem, with each limit among the bounds of its family."""
    chosen = dict(buckets)
    for objective in objectives:
        for stem, limit in objective.limits.items():
            bounds = chosen.get(stem, catalog.BY_STEM[stem].buckets)
            chosen[stem] = tuple(sorted({*bounds, limit}))
    return chosen


def _sections(text: str) -> list[_Section]:
    starts = [match.start() for match in _HEADER.finditer(text)]
    return [
        _Section(text.count("\n", 0, start) + 1, text[start:end])
        for start, end in pairwise([*starts, len(text)])
    ]


def _each_by_itself(
    sections: Iterable[_Section], named: str, warn: Warn
) -> Iterable[tuple[Any, _Section]]:
    """What is no TOML in one section leaves the others as they are."""
    for number, section in enumerate(sections, 1):
        try:
            # The parser says the line; let it be that of the file.
            content = tomllib.loads("\n" * (section.line - 1) + section.text)
        except tomllib.TOMLDecodeError as error:
            name = _NAME.search(section.text)
            whose = repr(name[1]) if name else number
            warn(f"{named}: objective {whose} is left out: {error}")
        else:
            yield content["objective"][0], section


def _tables(
    content: Mapping[str, Any], sections: list[_Section], named: str, warn: Warn
) -> list[tuple[Any, _Section | None]]:
    for key in content.keys() - {"objective"}:
        warn(f"{named}: {key!r} is ignored, as the file holds [[objective]] tables only")
    tables = content.get("objective")
    if not isinstance(tables, list):
        return []
    if len(tables) != len(sections):  # an inline list, or a header within a string
        return [(table, None) for table in tables]
    return list(zip(tables, sections, strict=True))


def _checked(
    tables: Iterable[tuple[Any, _Section | None]], named: str, warn: Warn
) -> tuple[Objective, ...]:
    objectives: dict[str, Objective] = {}
    for number, (table, section) in enumerate(tables, 1):
        try:
            objective = _objective(table)
            if objective.name in objectives:
                raise _Mistake("name", "there is another objective of this name")
        except _Mistake as mistake:
            name = table.get("name", number) if isinstance(table, dict) else number
            where = f", line {section.line_of(mistake.key)}" if section is not None else ""
            warn(f"{named}{where}: objective {name!r} is left out: {mistake}")
        else:
            objectives[objective.name] = objective
    return tuple(objectives.values())


def _objective(table: Any) -> Objective:
    if not isinstance(table, dict):
        raise _Mistake("objective", f"{table!r} is not a table")
    for key in table:
        if key not in _KEYS:
            near = _near(key, _KEYS)
            raise _Mistake(key, f"{key} = {table[key]!r} is none of {', '.join(_KEYS)}{near}")
    name, target = table.get("name"), table.get("target")
    if not isinstance(name, str) or not name.strip():
        raise _Mistake("name", f"name = {name!r} is not a name" if name else "it needs a name")
    if not _is_number(target) or not 0 < target < 1:
        raise _Mistake("target", f"target = {target!r} is not a share between 0 and 1, as 0.95 is")
    modality, streamed = table.get("modality"), table.get("streamed")
    if modality not in (None, *MODALITIES):
        known = ", ".join(MODALITIES)
        raise _Mistake("modality", f"modality = {modality!r} is none of {known}")
    if streamed is not None and not isinstance(streamed, bool):
        raise _Mistake("streamed", f"streamed = {streamed!r} is neither true nor false")
    models = table.get("models", [])
    if not isinstance(models, list) or not all(isinstance(model, str) for model in models):
        raise _Mistake("models", f"models = {models!r} is not a list of names")
    limits = _limits(table.get("limits"))
    for stem in limits:
        modality, streamed = _narrowed(stem, modality, streamed)
    return Objective(name, float(target), limits, modality, streamed, frozenset(models))


def _limits(table: Any) -> dict[str, float]:
    if not isinstance(table, dict) or not table:
        given = "" if table is None else f"limits = {table!r} has none: "
        raise _Mistake("limits", f"{given}it needs limits, as limits = {{ audio_rtf = 1.0 }}")
    limits: dict[str, float] = {}
    for key, limit in table.items():
        stem = key.removeprefix(catalog.PREFIX)
        if stem not in PER_REQUEST:
            raise _Mistake(key, f"{key} = {limit!r} cannot be a limit: {_why_not(stem)}")
        if not _is_number(limit) or not 0 < limit < math.inf:
            raise _Mistake(key, f"{key} = {limit!r} is not a number above 0")
        if stem in limits:
            raise _Mistake(key, f"{key} = {limit!r} is the second limit of {stem}")
        limits[stem] = float(limit)
    return limits


def _why_not(stem: str) -> str:
    family = catalog.BY_STEM.get(stem)
    if family is None:
        return f"there is no such family{_near(stem, PER_REQUEST)}"
    if family.kind != "histogram":
        return f"the family is a {family.kind}, and limits are those of histograms"
    return "the family has no value for each request by its end"


def _narrowed(
    stem: str, modality: str | None, streamed: bool | None
) -> tuple[str | None, bool | None]:
    """An objective is about those requests alone that can have a value of its families."""
    family = PER_REQUEST[stem]
    if family.modality is not None and modality not in (None, family.modality):
        why = f"{stem} is a family of {family.modality}, and modality = {modality!r}"
        raise _Mistake(stem, why)
    if family.streamed and streamed is False:
        raise _Mistake(stem, f"{stem} is a family of streamed audio, and streamed = false")
    return family.modality or modality, family.streamed or streamed


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _near(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""

"""The rules of the layout that reviewers would otherwise have to remember."""

from __future__ import annotations

import ast
import inspect
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import get_type_hints

import pytest

import vllm_omni_metrics_plugin
from vllm_omni_metrics_plugin import catalog
from vllm_omni_metrics_plugin.hooks import Event, events, plugins, specs
from vllm_omni_metrics_plugin.hooks import __all__ as public_hook_names
from vllm_omni_metrics_plugin.patches.seams.seam import ENGINE_FAMILIES, Seam
from vllm_omni_metrics_plugin.patches.table import SEAMS

ROOT = Path(vllm_omni_metrics_plugin.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
PACKAGE = "vllm_omni_metrics_plugin"
#: An alarm, not an architect: look whether a module has two ideas before raising it.
LONGEST_MODULE = 400


def label(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(path: Path, source: str | None = None) -> Iterator[str]:
    """Full names of everything that a module imports, wherever in it."""
    inside = [PACKAGE, *path.relative_to(ROOT).parent.parts]
    source = path.read_text() if source is None else source
    for node in ast.walk(ast.parse(source, str(path))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = inside[: len(inside) + 1 - node.level] if node.level else []
            origin = ".".join([*parents, *filter(None, [node.module])])
            yield from (f"{origin}.{name.name}" for name in node.names)


def is_in(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize(
    "path", [path for path in MODULES if not path.is_relative_to(ROOT / "patches")], ids=label
)
def test_only_the_patches_import_the_engine(path: Path) -> None:
    assert [name for name in imports(path) if is_in(name, "vllm", "vllm_omni")] == []


#: Each part of the package, and the parts that it may import; whatever it is not given, it may not.
#: patches -> sessions -> requests, channel -> hooks <- exporters; doctor, compare and cli on top.
MAY_IMPORT = {
    "": {"startup"},
    "internal_errors": set(),
    "tables": set(),
    "media": set(),
    "catalog": {"media"},
    "api_servers": {"catalog"},
    "scrape": {"catalog"},
    "request_headers": set(),
    "settings": {"catalog", "media", "request_headers"},
    "hooks": {"internal_errors", "media", "settings"},
    "objectives": {"catalog", "hooks"},
    "requests": {"internal_errors", "request_headers", "media", "hooks"},
    "sessions": {"hooks", "requests"},
    "channel": {"internal_errors", "hooks"},
    "exposition": {"internal_errors", "api_servers", "exporters"},
    "exporters": {
        *{"", "internal_errors", "api_servers", "catalog", "media", "hooks", "objectives"},
    },
    "compare": {"catalog", "scrape", "tables"},
    "kit": {"catalog", "doctor"},
    "patches": {
        *{"internal_errors", "media", "catalog", "hooks", "requests", "channel", "compare"},
        *{"request_headers", "sessions"},
    },
    "startup": {
        *{"", "internal_errors", "api_servers", "settings", "hooks", "requests", "channel"},
        *{"exporters", "exposition", "objectives", "patches", "request_headers"},
    },
    "testing": {"", "hooks", "settings"},
    "pytest_fixtures": {"testing"},
    "doctor": {
        *{"", "api_servers", "catalog", "channel", "exporters", "hooks", "patches", "scrape"},
        *{"objectives", "settings", "tables"},
    },
    "cli": {
        *{"", "catalog", "compare", "doctor", "hooks", "kit", "patches", "scrape", "settings"},
        "tables",
    },
}


#: Everybody may read the version, which is there before anything is imported.
MAY_IMPORT_WITHOUT_VERSION = {
    part: needed - {""} if part else needed for part, needed in MAY_IMPORT.items()
}


def part_of(name: str) -> str:
    """The part of the package that a full name is in; empty for the package itself."""
    part = name.removeprefix(PACKAGE).lstrip(".").partition(".")[0]
    return part if (ROOT / part).is_dir() or (ROOT / f"{part}.py").exists() else ""


def part_of_path(path: Path) -> str:
    inside = path.relative_to(ROOT).with_suffix("").parts
    return "" if inside == ("__init__",) else inside[0]


@pytest.mark.parametrize("path", MODULES, ids=label)
def test_imports_go_in_one_direction(path: Path) -> None:
    part = part_of_path(path)
    imported = {part_of(name) for name in imports(path) if is_in(name, PACKAGE)} - {part}
    assert imported <= MAY_IMPORT[part]


def test_parts_that_may_be_imported_form_no_circle() -> None:
    lowest_first = list(TopologicalSorter(MAY_IMPORT_WITHOUT_VERSION).static_order())
    assert set(lowest_first) == set(MAY_IMPORT)


def test_modules_form_no_circle() -> None:
    known = {module_name(path) for path in MODULES}
    graph = {
        module_name(path): {found for name in imports(path) if (found := module_of(name, known))}
        for path in MODULES
    }
    for module, needed in graph.items():
        needed.discard(module)
        needed.discard(PACKAGE)  # for its version, which is there before anything is imported
    TopologicalSorter(graph).prepare()  # names the circle


def module_name(path: Path) -> str:
    return ".".join([PACKAGE, *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(
        ".__init__"
    )


def module_of(name: str, known: set[str]) -> str | None:
    """The module of ours that an imported name is, or is in."""
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name or None


def test_imports_of_every_form_are_seen() -> None:
    source = """
import vllm.envs as envs, os
def late():
    from vllm_omni.engine import messages
    from . import seam
    from ..hooks import events
"""
    assert set(imports(ROOT / "patches" / "sample.py", source)) == {
        "vllm.envs",
        "os",
        "vllm_omni.engine.messages",
        f"{PACKAGE}.patches.seam",
        f"{PACKAGE}.hooks.events",
    }


@pytest.mark.parametrize("path", MODULES, ids=label)
def test_modules_stay_short_enough_to_be_read(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= LONGEST_MODULE, f"{label(path)} has {lines} lines"


# The catalogue


def test_each_family_is_in_the_catalogue_once() -> None:
    assert [stem for stem, n in Counter(f.stem for f in catalog.FAMILIES).items() if n > 1] == []
    assert {family.stem: family for family in catalog.FAMILIES} == catalog.BY_STEM


@pytest.mark.parametrize("family", catalog.FAMILIES, ids=lambda family: family.stem)
def test_family_is_well_formed(family: catalog.Family) -> None:
    assert family.event == catalog.PLUGIN or family.event in vars(plugins.hooks)
    assert family.name == f"vllm:omni_{family.stem}"
    assert (family.kind == "counter") == family.stem.endswith("_total")
    assert (family.kind == "histogram") == bool(family.buckets)
    assert list(family.buckets) == sorted(set(family.buckets))
    assert len(family.labels) == len(set(family.labels))
    assert family.help.endswith(".")
    assert family.unit
    assert family.formula


# The seams


@pytest.mark.parametrize("seam", SEAMS, ids=lambda seam: seam.name)
def test_seam_feeds_families_of_the_catalogue(seam: Seam) -> None:
    assert seam.families
    assert set(seam.feeds) <= {*vars(plugins.hooks), *catalog.BY_STEM, ENGINE_FAMILIES}
    assert set(seam.without) <= {f.stem for f in catalog.FAMILIES if f.event in seam.feeds}


def test_seams_have_names_of_their_own() -> None:
    assert [name for name, n in Counter(seam.name for seam in SEAMS).items() if n > 1] == []


def test_every_family_that_comes_from_the_engine_has_a_seam() -> None:
    own = {family.stem for family in catalog.FAMILIES if family.is_own}
    fed = {stem for seam in SEAMS for stem in seam.families}
    assert set(catalog.BY_STEM) - own == fed - {ENGINE_FAMILIES}


# Hooks and events


def event_classes() -> set[type[Event]]:
    return {
        value
        for value in vars(events).values()
        if isinstance(value, type) and issubclass(value, Event) and value is not Event
    }


def test_every_hook_has_an_event_class_of_its_own() -> None:
    hooks = {name: spec for name, spec in vars(specs).items() if name.startswith("omni_")}
    assert set(hooks) == set(vars(plugins.hooks))
    carried = {}
    for name, spec in hooks.items():
        assert list(inspect.signature(spec).parameters) == ["event"], name
        assert spec.__doc__, name
        carried[name] = get_type_hints(spec)["event"]
    assert Counter(carried.values()) == Counter(event_classes())
    for name, event in carried.items():
        words = name.removeprefix("omni_").split("_")
        assert event.__name__ == "".join(word.capitalize() for word in words)


def test_every_event_class_is_public() -> None:
    assert {event.__name__ for event in event_classes()} <= set(public_hook_names)


def test_events_cannot_be_changed_by_a_listener() -> None:
    for event in event_classes():
        assert event.__struct_config__.frozen, event
        assert event.__doc__, event

"""What an index and an installer are told about the package."""

from __future__ import annotations

import importlib
import re
from importlib.metadata import EntryPoint, PackageMetadata, distribution
from importlib.resources import files

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import vllm_omni_metrics_plugin
from testbed.install.groups import claimed_pythons, pyproject, requirements
from testbed.paths import ROOT
from vllm_omni_metrics_plugin.hooks import Configured
from vllm_omni_metrics_plugin.testing import make_event

NAME = "vllm-omni-metrics-plugin"
ENTRY_POINTS = {
    ("vllm.general_plugins", "omni_metrics"),
    ("vllm_omni.general_plugins", "omni_metrics"),
    ("console_scripts", "vllm-omni-metrics"),
    ("pytest11", "omni_hooks"),
}


@pytest.fixture
def metadata() -> PackageMetadata:
    return distribution(NAME).metadata


@pytest.fixture
def urls(metadata: PackageMetadata) -> dict[str, str]:
    return dict(url.split(", ", 1) for url in metadata.get_all("Project-URL") or [])


def test_version_is_the_packages_own(metadata: PackageMetadata) -> None:
    assert metadata["Version"] == vllm_omni_metrics_plugin.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+)?", metadata["Version"])


def test_version_is_written_in_one_place() -> None:
    written = f'"{vllm_omni_metrics_plugin.__version__}"'
    places = [
        path.relative_to(ROOT).as_posix()
        for path in (
            *ROOT.glob("vllm_omni_metrics_plugin/**/*.py"),
            *(ROOT / name for name in ("pyproject.toml", "setup.cfg")),
        )
        if written in path.read_text()
    ]
    assert places == ["vllm_omni_metrics_plugin/__init__.py"]


def test_example_event_has_the_packages_version() -> None:
    assert make_event(Configured).versions[NAME] == vllm_omni_metrics_plugin.__version__


def test_name_is_the_one_that_is_installed_by(metadata: PackageMetadata) -> None:
    assert metadata["Name"] == NAME


def test_entry_points_are_those_that_are_looked_for_and_resolve() -> None:
    declared = list(distribution(NAME).entry_points)
    assert {(entry.group, entry.name) for entry in declared} == ENTRY_POINTS
    for entry in declared:
        assert _resolved(entry) is not None, entry


def _resolved(entry: EntryPoint) -> object:
    """Not by ``load``, which a module that is being tested has no say in."""
    module = importlib.import_module(entry.module)
    return getattr(module, entry.attr) if entry.attr else module


def test_types_are_announced() -> None:
    assert (files(vllm_omni_metrics_plugin) / "py.typed").is_file()
    assert "Typing :: Typed" in distribution(NAME).metadata.get_all("Classifier", [])


def test_package_is_described(metadata: PackageMetadata) -> None:
    assert metadata["Summary"]
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("License-File") == ["LICENSE"]


def test_urls_are_all_of_the_repository(urls: dict[str, str]) -> None:
    assert set(urls) == {"Documentation", "Repository", "Changelog", "Issues"}
    assert all(url.startswith(urls["Repository"]) for url in urls.values())
    assert urls["Repository"] == f"https://github.com/{NAME}/{NAME}"


def test_urls_of_files_lead_to_files_of_this_checkout(urls: dict[str, str]) -> None:
    for name, place in (("Documentation", "tree/main/"), ("Changelog", "blob/main/")):
        _, found, path = urls[name].partition(place)
        assert found, urls[name]
        assert (ROOT / path).exists(), path


def test_classifiers_are_known_to_the_index(metadata: PackageMetadata) -> None:
    trove = pytest.importorskip("trove_classifiers", reason="make check and make venv install it")
    used = metadata.get_all("Classifier") or []
    assert set(used) <= trove.classifiers
    assert len(used) == len(set(used))


def test_pythons_that_are_claimed_are_those_that_pip_lets_in(metadata: PackageMetadata) -> None:
    allowed = SpecifierSet(metadata["Requires-Python"])
    assert [f"3.{minor}" for minor in range(30) if f"3.{minor}" in allowed] == claimed_pythons()


def test_each_dependency_has_a_floor_and_no_ceiling(metadata: PackageMetadata) -> None:
    plain = [
        requirement
        for requirement in map(Requirement, metadata.get_all("Requires-Dist") or [])
        if "extra" not in str(requirement.marker or "")
    ]
    # Python has the parser itself since 3.11.
    assert {requirement.name for requirement in plain} - {"tomli"} == {
        *("msgspec", "pluggy", "prometheus-client", "pyzmq")
    }, "every one is in the engine's environment already"
    for requirement in plain:
        assert {part.operator for part in requirement.specifier} == {">="}, str(requirement)


def test_engine_is_never_a_plain_dependency(metadata: PackageMetadata) -> None:
    engines = [
        requirement
        for requirement in map(Requirement, metadata.get_all("Requires-Dist") or [])
        if requirement.name.startswith(("vllm", "torch"))
    ]
    assert engines
    assert all('extra == "engine"' in str(requirement.marker) for requirement in engines)


def test_groups_hold_what_builds_the_package_and_the_extra_for_opentelemetry() -> None:
    assert requirements("build") == pyproject()["build-system"]["requires"]
    assert requirements("otel") == pyproject()["project"]["optional-dependencies"]["otel"]
    assert set(requirements("build", "otel")) <= set(requirements("check"))


def test_examples_need_nothing_else() -> None:
    needed = {
        requirement.name
        for path in ROOT.glob("examples/*/pyproject.toml")
        for requirement in map(Requirement, pyproject(path)["project"]["dependencies"])
    }
    ours = {"msgspec", "prometheus-client", NAME}
    assert needed <= ours


def test_group_that_there_is_not_is_an_error() -> None:
    with pytest.raises(KeyError):
        requirements("absent")

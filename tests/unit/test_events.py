"""What events know beside their fields, and where they are found."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

from vllm_omni_metrics_plugin import hooks
from vllm_omni_metrics_plugin.hooks import AudioFinished, Event, HookRegistry, VideoFinished, events
from vllm_omni_metrics_plugin.testing import EVENTS, make_event


@pytest.mark.parametrize("kind", [AudioFinished, VideoFinished])
@pytest.mark.parametrize(
    ("generation_seconds", "duration_seconds", "rtf"),
    [
        (0.5, 2.0, 0.25),
        (3.0, 2.0, 1.5),
        (0.0, 2.0, 0.0),
        (None, 2.0, None),
        (0.5, None, None),
        (0.5, 0.0, None),
        (None, None, None),
    ],
)
def test_real_time_factor_is_generation_over_duration_where_both_are_known(
    kind: type[AudioFinished | VideoFinished],
    generation_seconds: float | None,
    duration_seconds: float | None,
    rtf: float | None,
) -> None:
    event = make_event(
        kind, generation_seconds=generation_seconds, duration_seconds=duration_seconds
    )
    assert event.rtf == rtf


@pytest.mark.parametrize("kind", EVENTS.values(), ids=lambda kind: kind.__name__)
def test_event_is_found_with_all_others_and_with_the_hooks(kind: type[Event]) -> None:
    assert getattr(events, kind.__name__) is getattr(hooks, kind.__name__) is kind
    assert kind.__name__ in events.__all__


def test_every_name_of_a_domain_is_public_and_nothing_else_is() -> None:
    defined = set()
    for found in pkgutil.iter_modules(events.__path__, f"{events.__name__}."):
        module = importlib.import_module(found.name)
        defined |= {
            name
            for name, value in vars(module).items()
            if isinstance(value, type) and value.__module__ == module.__name__
        }
    words = {"Departure", "Modality", "Operation", "PatchStatus", "Role", "Segment", "Transport"}
    words |= {"Origin", "Unheard", "Verdict"}
    assert set(events.__all__) == defined | words


def test_one_registry_is_the_process_own_and_it_is_where_users_import_it() -> None:
    owners = []
    for found in pkgutil.walk_packages(hooks.__path__, f"{hooks.__name__}."):
        module = importlib.import_module(found.name)
        if any(isinstance(value, HookRegistry) for value in vars(module).values()):
            owners.append(found.name)
    assert owners == []
    assert isinstance(hooks.plugins, HookRegistry)

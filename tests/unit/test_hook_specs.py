"""What is said of each hook, to type checkers and to readers."""

from __future__ import annotations

from typing import get_args, get_origin, get_type_hints

import pytest

from vllm_omni_metrics_plugin.hooks import Hooks, plugins, specs
from vllm_omni_metrics_plugin.hooks.marks import PROCESSES
from vllm_omni_metrics_plugin.testing import EVENTS


def test_every_hook_has_its_type_for_those_who_call_it() -> None:
    said = get_type_hints(Hooks)
    assert {name: get_args(kind) for name, kind in said.items()} == {
        name: (event,) for name, event in EVENTS.items()
    }, "write a line of hooks/hooks.py"
    assert {name: get_origin(kind) for name, kind in said.items()} == {
        name: type(hook) for name, hook in vars(plugins.hooks).items()
    }


@pytest.mark.parametrize("hook", EVENTS)
def test_every_hook_says_what_people_use_it_for(hook: str) -> None:
    used_for = getattr(getattr(specs, hook), specs.USED_FOR)
    assert used_for.endswith("."), "write used_for= in hooks/specs.py"
    assert used_for[0].isupper()


def test_processes_of_hooks_are_roles_of_the_event() -> None:
    roles = get_type_hints(EVENTS["omni_configured"])["role"]
    assert set(PROCESSES) <= set(get_args(roles))

"""For tests of hook plugins: events without an engine, hooks without a server, a recorder of all.

::

    from vllm_omni_metrics_plugin.testing import speech_request

    def test_late_starts_are_counted(omni_hooks):
        mine = omni_hooks.register(MyPlugin())
        omni_hooks.fire(*speech_request(first_packet_seconds=2.0))
        assert mine.late_starts == 1

The fixture ``omni_hooks`` is there wherever this package and pytest are installed. What the server
would contain, such as an exception of the plugin, fails the test here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_omni_metrics_plugin.hooks import renamed
from vllm_omni_metrics_plugin.testing.events import EVENTS, make_event, speech_request
from vllm_omni_metrics_plugin.testing.harness import HookHarness, Recorder

__all__ = ["EVENTS", "HookHarness", "Recorder", "make_event", "speech_request"]

if not TYPE_CHECKING:
    __getattr__ = renamed.module_getattr(
        __name__, {"HookStage": "HookHarness", "make": "make_event"}
    )

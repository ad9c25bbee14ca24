"""A hook plugin for the server: notes down where it is imported and where it is called."""

import os

from vllm_omni_metrics_plugin.hooks import Configured, hookimpl


def note(what: str, role: str) -> None:
    with open(os.environ["WHERE_HOOKS_ARE"], "a") as file:  # a short line is written whole
        file.write(f"in_the_server {what} {role} {os.getpid()}\n")


note("imported", "-")


@hookimpl
def omni_configured(event: Configured) -> None:
    note("called", event.role)

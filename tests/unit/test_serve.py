"""What ``make serve`` hands on to the server."""

from __future__ import annotations

from testbed.serve import own_variables


def test_server_gets_the_plugins_variables_of_the_shell() -> None:
    shell = {"VLLM_OMNI_METRICS_HOOKS": "./late_starts.py", "PATH": "/bin"}
    assert own_variables(shell) == {"VLLM_OMNI_METRICS_HOOKS": "./late_starts.py"}

"""What pytest loads by itself (entry point group ``pytest11``), in every environment that has us.

So it imports nothing but pytest until a test asks for a fixture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from vllm_omni_metrics_plugin.testing import HookHarness


@pytest.fixture
def omni_hooks() -> Iterator[HookHarness]:
    """Hooks of a server that is not there: register a vllm-omni hook plugin, fire events."""
    from vllm_omni_metrics_plugin.testing import HookHarness

    with HookHarness() as harness:
        yield harness

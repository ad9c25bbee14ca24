"""``python -m vllm_omni_metrics_plugin.cli``, where the console script is not on the path."""

from __future__ import annotations

import sys

from vllm_omni_metrics_plugin.cli import main

sys.exit(main())

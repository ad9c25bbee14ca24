"""What the patches of this process share."""

from __future__ import annotations

from vllm_omni_metrics_plugin.requests import OpenRequests

open_requests = OpenRequests()

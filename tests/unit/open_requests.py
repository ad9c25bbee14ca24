"""The table that a test's request is in."""

from __future__ import annotations

from vllm_omni_metrics_plugin.requests import OpenRequest, OpenRequests


def table_of(request: OpenRequest) -> OpenRequests:
    """The request knows less of it than a test."""
    table = request.requests
    assert isinstance(table, OpenRequests)
    return table

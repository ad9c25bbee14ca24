"""Reading pages in OpenMetrics by all of its rules."""

from __future__ import annotations

from typing import Any

from prometheus_client.openmetrics.parser import text_string_to_metric_families


def strictly(page: bytes) -> list[Any]:
    """The samples of a page; raises ValueError for what is against the rules."""
    families = text_string_to_metric_families(page.decode())  # type: ignore[no-untyped-call]
    return [sample for family in families for sample in family.samples]

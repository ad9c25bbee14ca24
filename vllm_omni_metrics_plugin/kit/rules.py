"""Recording rules: the ratios that alerts and people ask for again and again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vllm_omni_metrics_plugin.kit.promql import rate, ratio, series, total

_MODEL = ("job", "model_name")
#: The windows of the burn rates, short before long, as pairs: both must burn.
FAST = ("5m", "1h")
SLOW = ("30m", "6h")
#: Verdicts that count against a target.
JUDGED = '=~"good|bad"'


@dataclass(frozen=True)
class Recorded:
    """One series that Prometheus computes ahead."""

    name: str
    expression: str


def bad_ratio(window: str) -> str:
    """The name under which the share of bad requests over ``window`` is recorded."""
    return f"job_model_objective:omni_slo_requests:bad_ratio_rate{window}"


def _bad_ratio(window: str) -> Recorded:
    def judged(verdict: str) -> str:
        counted = rate(series("slo_requests_total", verdict=verdict), window)
        return total(counted, (*_MODEL, "objective"))

    return Recorded(bad_ratio(window), ratio(judged('="bad"'), judged(JUDGED)))


def _over_10_minutes(name: str, by: Sequence[str], **matchers: str) -> str:
    return total(rate(series(name, **matchers), "10m"), by)


ERROR_RATIO = "job_model:omni_requests:error_ratio_rate10m"
STALL_RATIO = "job_model_player:omni_audio:stall_ratio_rate10m"
BUSY_RATIO = "job_model_stage:omni_stage:busy_ratio_rate5m"

RECORDED: tuple[Recorded, ...] = (
    *(_bad_ratio(window) for window in (*FAST, *SLOW)),
    Recorded(
        ERROR_RATIO,
        ratio(
            _over_10_minutes("requests_success_total", _MODEL, finished_reason='="error"'),
            _over_10_minutes("requests_success_total", _MODEL, finished_reason='!="rejected"'),
        ),
    ),
    Recorded(
        STALL_RATIO,
        ratio(
            _over_10_minutes("audio_stall_seconds_total", (*_MODEL, "player")),
            _over_10_minutes("audio_played_seconds_total", (*_MODEL, "player")),
        ),
    ),
    Recorded(
        BUSY_RATIO,
        total(rate(series("stage_busy_seconds_total"), "5m"), (*_MODEL, "stage"), "avg"),
    ),
)

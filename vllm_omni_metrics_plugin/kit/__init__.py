"""The operator's kit: dashboards, rules, a runbook, and files for routers and autoscalers.

Everything is data, made into files by :func:`files`; names and labels come from the catalogue.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files as resources
from typing import Literal

from vllm_omni_metrics_plugin.kit import yaml
from vllm_omni_metrics_plugin.kit.alerts import ALERTS
from vllm_omni_metrics_plugin.kit.grafana import dashboard
from vllm_omni_metrics_plugin.kit.overview import OVERVIEW
from vllm_omni_metrics_plugin.kit.realtime import REALTIME
from vllm_omni_metrics_plugin.kit.rules import RECORDED
from vllm_omni_metrics_plugin.kit.runbook import runbook
from vllm_omni_metrics_plugin.kit.speech import SPEECH
from vllm_omni_metrics_plugin.kit.stages import STAGES
from vllm_omni_metrics_plugin.kit.visual import IMAGES_AND_VIDEO

__all__ = ["ALERTS", "DASHBOARDS", "NAMES", "RECORDED", "Names", "files"]

#: Whether Prometheus has the names as the server shows them, or a collector took their colons.
Names = Literal["colon", "underscore"]
NAMES: tuple[Names, ...] = ("colon", "underscore")

DASHBOARDS = (OVERVIEW, SPEECH, IMAGES_AND_VIDEO, STAGES, REALTIME)

#: What is the same for everybody: names of files beside this one.
_WRITTEN_BY_HAND = (
    *("README.md", "drain.py", "endpoint-picker.yaml", "hpa.yaml", "keda-scaledobject.yaml"),
    *("pod.yaml", "prometheus-adapter.yaml", "prometheus/prometheus.yml"),
)
_COLON = re.compile(r"\bvllm:(?=\w)")
#: These read the server itself, whose names have their colons whatever Prometheus makes of them.
_READ_THE_SERVER = ("drain.py", "endpoint-picker.yaml")


def files(names: Names = "colon") -> Mapping[str, str]:
    """What the kit consists of: by path, relative to where it is to be, the content."""
    made = {
        **{f"grafana/{board.name}.json": dashboard(board) for board in DASHBOARDS},
        "prometheus/recording-rules.yml": yaml.recording_rules(RECORDED),
        "prometheus/alert-rules.yml": yaml.alert_rules(ALERTS),
        "runbook.md": runbook(ALERTS),
    }
    here = resources(__package__) / "files"
    for name in _WRITTEN_BY_HAND:
        made[name] = here.joinpath(*name.split("/")).read_text()
    if names == "underscore":
        made = {
            path: text if path in _READ_THE_SERVER else _COLON.sub("vllm_", text)
            for path, text in made.items()
        }
    return dict(sorted(made.items()))

"""What the files in ``deploy/`` ask, read out of them as those do who are given them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

from testbed.paths import ROOT

DEPLOY = ROOT / "deploy"
DRAIN = DEPLOY / "drain.py"
NAMESPACE = "my-namespace"
MODEL = "my-model"


class Query(NamedTuple):
    """One query, and the selector by which its reader looks for series first, if it does."""

    name: str
    text: str
    discovery: str | None = None

    def about(self, model: str) -> Query:
        """The same for another model."""
        return self._replace(text=self.text.replace(MODEL, model))


def content(name: str) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load((DEPLOY / name).read_text())
    return data


def keda() -> dict[str, Query]:
    """The queries of the triggers, by the triggers' names."""
    triggers = content("keda-scaledobject.yaml")["spec"]["triggers"]
    return {t["name"]: Query(t["name"], t["metadata"]["query"]) for t in triggers}


def adapter(pod: str) -> dict[str, Query]:
    """What prometheus-adapter asks of one pod, or of the model, by the name of the metric."""
    rules = content("prometheus-adapter.yaml")
    of_pod = {"LabelMatchers": f'namespace="{NAMESPACE}",pod=~"{pod}"', "GroupBy": "pod"}
    of_model = {"LabelMatchers": f'namespace="{NAMESPACE}",model_name="{MODEL}"'}
    return {
        query.name: query
        for kind, fields in (("rules", of_pod), ("externalRules", of_model))
        for query in (_filled(rule, fields) for rule in rules[kind])
    }


def _filled(rule: dict[str, Any], fields: dict[str, str]) -> Query:
    text = rule["metricsQuery"]
    series = rule["seriesQuery"].partition("{")[0]
    for field, value in {"Series": series, **fields}.items():
        text = text.replace(f"<<.{field}>>", value)
    return Query(rule["name"]["as"], text, rule["seriesQuery"])


def engine() -> dict[str, str]:
    """What the endpoint picker reads of an engine, by the field that says so."""
    return next(_engines())


def _engines() -> Iterator[dict[str, str]]:
    for plugin in content("endpoint-picker.yaml")["plugins"]:
        yield from plugin.get("parameters", {}).get("engineConfigs", ())

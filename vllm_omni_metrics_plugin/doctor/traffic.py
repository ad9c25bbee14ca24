"""Judging a running server by its ``/metrics``."""

from __future__ import annotations

from collections.abc import Iterable

from vllm_omni_metrics_plugin import catalog
from vllm_omni_metrics_plugin.doctor.report import Finding
from vllm_omni_metrics_plugin.doctor.rules import REASONS, RULES, TALLIES, Rule, Tally
from vllm_omni_metrics_plugin.scrape import Sample, Scrape


class _Labels(dict[str, str]):
    """Labels for a sentence; another version of the plugin may not have them all."""

    def __missing__(self, label: str) -> str:
        return "?"


def judge(page: Scrape) -> list[Finding]:
    """What is missing on the page, given the traffic that it shows."""
    return [*_missing_samples(page), *_tallies(page, TALLIES), *_rules(page, RULES)]


def _rules(page: Scrape, rules: Iterable[Rule]) -> list[Finding]:
    broken: dict[str, Finding] = {}
    for rule in rules:
        traffic = sum(measure.of(page) for measure in rule.traffic)
        if (
            traffic > sum(measure.of(page) for measure in rule.beyond)
            and all(measure.of(page) for measure in rule.also)
            and not any(measure.of(page) for measure in rule.lacks)
            and rule.unless not in broken
        ):
            message = rule.message.format(traffic=f"{traffic:g}")
            broken[rule.name] = Finding(rule.severity, rule.name, message)
    return list(broken.values())


def _tallies(page: Scrape, tallies: Iterable[Tally]) -> list[Finding]:
    return [
        Finding(
            tally.severity,
            tally.sample.removesuffix("_total"),
            tally.message.format_map(_Labels(sample.labels, value=f"{sample.value:g}")),
        )
        for tally in tallies
        for sample in page.named(catalog.PREFIX + tally.sample)
        if sample.value
        and all(sample.labels.get(label) in values for label, values in tally.where.items())
    ]


def _missing_samples(page: Scrape) -> list[Finding]:
    return [
        _missing(sample)
        for sample in page.named(f"{catalog.PREFIX}metrics_missing_samples_total")
        if sample.value
    ]


def _missing(sample: Sample) -> Finding:
    reason = sample.labels.get("reason", "for no known reason")
    severity, sentence = REASONS.get(reason, ("degraded", reason))
    family = sample.labels.get("family", "a family").removeprefix(catalog.PREFIX)
    message = f"{family} lacks {sample.value:g} samples: {sentence}"
    return Finding(severity, "missing_samples", message)

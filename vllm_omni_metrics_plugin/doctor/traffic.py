"""Judging a running server by its ``/metrics``."""

from __future__ import annotations

from collections.abc import Iterable

from vllm_omni_metrics_plugin import catalog
from vllm_omni_metrics_plugin.doctor.report import Finding
from vllm_omni_metrics_plugin.doctor.rules import REASONS, RULES, TALLIES, Rule, Tally
from vllm_omni_metrics_plugin.scrape import Sample, Scrape


class _Words(dict[str, str]):
    """Labels for a sentence; another version of the plugin may not have them all."""

    def __missing__(self, label: str) -> str:
        return "?"


def judge(seen: Scrape) -> list[Finding]:
    """What is missing in what was seen, given the traffic."""
    return [*_missing_samples(seen), *_tallies(seen, TALLIES), *_rules(seen, RULES)]


def _rules(seen: Scrape, rules: Iterable[Rule]) -> list[Finding]:
    broken: dict[str, Finding] = {}
    for rule in rules:
        given = sum(measure.of(seen) for measure in rule.given)
        if (
            given > sum(measure.of(seen) for measure in rule.beyond)
            and all(measure.of(seen) for measure in rule.also)
            and not any(measure.of(seen) for measure in rule.lacks)
            and rule.unless not in broken
        ):
            said = rule.says.format(given=f"{given:g}")
            broken[rule.name] = Finding(rule.severity, rule.name, said)
    return list(broken.values())


def _tallies(seen: Scrape, tallies: Iterable[Tally]) -> list[Finding]:
    return [
        Finding(
            tally.severity,
            tally.sample.removesuffix("_total"),
            tally.says.format_map(_Words(sample.labels, value=f"{sample.value:g}")),
        )
        for tally in tallies
        for sample in seen.named(catalog.PREFIX + tally.sample)
        if sample.value
        and all(sample.labels.get(label) in values for label, values in tally.where.items())
    ]


def _missing_samples(seen: Scrape) -> list[Finding]:
    return [
        _missing(sample)
        for sample in seen.named(f"{catalog.PREFIX}metrics_missing_samples_total")
        if sample.value
    ]


def _missing(sample: Sample) -> Finding:
    reason = sample.labels.get("reason", "for no known reason")
    severity, sentence = REASONS.get(reason, ("degraded", reason))
    family = sample.labels.get("family", "a family").removeprefix(catalog.PREFIX)
    said = f"{family} lacks {sample.value:g} samples: {sentence}"
    return Finding(severity, "missing_samples", said)

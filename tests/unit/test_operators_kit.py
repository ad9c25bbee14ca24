"""The operator's kit: what its files ask exists, and they are what the generator makes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.operators_kit import (
    DEPLOY,
    Asked,
    alerts,
    asked_by_panels,
    asked_by_rules,
    asked_by_runbook,
    dashboards,
    panels,
    rules,
)
from tests.promql import Known, known, read
from vllm_omni_metrics_plugin import catalog, kit
from vllm_omni_metrics_plugin.cli import main
from vllm_omni_metrics_plugin.doctor.rules import REASONS
from vllm_omni_metrics_plugin.kit import promql

ASKED = [*asked_by_rules(), *asked_by_panels(), *asked_by_runbook()]
VARIABLES = ["datasource", "job", "model_name", "stage", "replica"]


def _known() -> Known:
    """With what the recording rules make, of which each needs only what is above it."""
    recorded: dict[str, frozenset[str]] = {}
    for rule in rules():
        if "record" in rule:
            recorded[rule["record"]] = read(rule["expr"], known(recorded)).labels
    return known(recorded)


KNOWN = _known()
FAMILIES = {family.name: family for family in catalog.FAMILIES}
LABELS = {
    **{name: family.labels for name, family in FAMILIES.items()},
    **promql.ENGINE,
}


def problems(of: Known) -> list[str]:
    return [problem for asked in ASKED for problem in read(asked.expression, of).problems]


# The files


def test_files_in_the_repository_are_what_the_generator_makes() -> None:
    for name, content in kit.files().items():
        assert (DEPLOY / name).read_text() == content, f"{name}: vllm-omni-metrics kit --out deploy"


def test_repository_has_no_file_that_the_generator_does_not_make() -> None:
    there = {path.relative_to(DEPLOY).as_posix() for path in DEPLOY.rglob("*") if path.is_file()}
    assert {name for name in there if "__pycache__" not in name} == set(kit.files())


def test_command_writes_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kit", "--out", str(tmp_path / "new")]) == 0
    said = capsys.readouterr().out.splitlines()
    for name, content in kit.files().items():
        assert (tmp_path / "new" / name).read_text() == content
        assert str(tmp_path / "new" / name) in said


def test_command_says_where_it_could_not_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["kit", "--out", str(tmp_path / "file")]) == 1
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_names_without_colons_are_for_those_who_ask_prometheus() -> None:
    with_colons, without = kit.files("colon"), kit.files("underscore")
    assert set(with_colons) == set(without)
    for name, content in without.items():
        if name in ("drain.py", "endpoint-picker.yaml"):  # they read the server's own page
            assert content == with_colons[name]
        else:
            assert "vllm:" not in content
            assert content == with_colons[name].replace("vllm:", "vllm_")


# What is asked


@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: asked.where)
def test_expression_asks_for_families_and_labels_that_there_are(asked: Asked) -> None:
    reading = read(asked.expression, KNOWN)
    assert reading.problems == []
    assert asked.named <= reading.labels


@pytest.mark.parametrize("name", FAMILIES)
def test_kit_with_a_family_of_another_name_does_not_pass(name: str) -> None:
    assert problems(KNOWN.without(name))


@pytest.mark.parametrize(
    ("name", "label"), [(name, label) for name, labels in LABELS.items() for label in labels]
)
def test_kit_with_a_family_that_lacks_a_label_does_not_pass(name: str, label: str) -> None:
    assert problems(KNOWN.lacking(name, label))


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("vllm:omni_nothing", "there is no vllm:omni_nothing"),
        ('vllm:omni_stage_info{colour="red"}', "there is no label colour"),
        ("sum by (stage) (vllm:omni_backlog_seconds)", "there is no label stage"),
        ("sum without (stage) (vllm:omni_stage_info)", "only by says"),
        ("rate(vllm:omni_backlog_seconds[5m])", "does not count"),
        ("increase(vllm:kv_cache_usage_perc[5m])", "does not count"),
        ("rate(vllm:omni_audio_rtf[5m])", "there is no vllm:omni_audio_rtf"),
        ("histogram_quantile(0.9, rate(vllm:omni_audio_rtf_bucket[5m]))", "sum by (le"),
        ("histogram_quantile(0.9, sum by (stage) (rate(vllm:omni_audio_rtf_bucket[5m])))", "(le"),
        ("histogram_quantile(0.9, avg by (le) (rate(vllm:omni_audio_rtf_bucket[5m])))", "(le"),
        ("vllm:omni_stage_info / vllm:omni_backlog_seconds", "which never meet"),
        ("vllm:omni_stage_info / on (stage) vllm:omni_backlog_seconds", "there is no label stage"),
    ],
)
def test_what_is_wrong_with_an_expression_is_found(expression: str, problem: str) -> None:
    assert any(problem in found for found in read(expression, KNOWN).problems)


@pytest.mark.parametrize("name", ["nothing", "audio_rtf", "backlog_seconds_sum", "image_num"])
def test_generator_does_not_ask_for_a_sample_that_there_is_not(name: str) -> None:
    with pytest.raises(KeyError):
        promql.metric(name)


def test_generator_does_not_ask_for_a_label_that_there_is_not() -> None:
    with pytest.raises(ValueError, match="has no label colour"):
        promql.series("backlog_seconds", colour='="red"')


# Dashboards


def test_every_panel_asks_for_the_chosen_job_alone() -> None:
    for asked in asked_by_panels():
        selectors = len(re.findall(r"\bvllm:", asked.expression))
        assert asked.expression.count('{job=~"$job"') == selectors, asked.where


@pytest.mark.parametrize(
    ("board", "panel"), [*panels()], ids=lambda value: value if isinstance(value, str) else ""
)
def test_panel_says_what_it_shows(board: str, panel: dict[str, Any]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["noValue"] == "No traffic"
    assert defaults["unit"]
    assert panel["title"]
    assert len(panel["description"]) > 20
    assert panel["links"][0]["url"].startswith("https://")
    assert panel["datasource"]["uid"] == "${datasource}"


def legends(panel: dict[str, Any]) -> list[str]:
    return [target["legendFormat"] for target in panel["targets"]]


def test_legend_says_of_what_a_number_is() -> None:
    numbers = re.compile(
        r"(?<!stage )\{\{stage\}\}|(?<!buffer of )\{\{player\}\}|(?<!/)\{\{replica\}\}"
    )
    for name, panel in panels():
        for legend in legends(panel):
            if panel["type"] == "timeseries":
                assert numbers.findall(legend) == [], (name, panel["title"], legend)


def test_title_says_per_second_where_the_unit_does_not() -> None:
    for name, panel in panels():
        rated = all("rate(" in target["expr"] for target in panel["targets"])
        counted = not re.search(r"histogram_quantile| / ", panel["targets"][0]["expr"])
        if rated and counted and panel["fieldConfig"]["defaults"]["unit"] == "short":
            assert "per second" in panel["title"], (name, panel["title"])


def test_title_names_the_quantile_that_is_the_only_one() -> None:
    for name, panel in panels():
        asked = [re.match(r"histogram_quantile\(([\d.]+)", t["expr"]) for t in panel["targets"]]
        quantiles = [f"p{100 * float(match.group(1)):g}" for match in asked if match]
        if len(quantiles) == 1:
            assert panel["title"].endswith(f", {quantiles[0]}"), (name, panel["title"])
        else:
            said = [legend.partition(" ")[0] for legend in legends(panel)]
            assert not quantiles or said == quantiles, (name, panel["title"])


def test_legend_has_the_last_values() -> None:
    shown = [panel["options"]["legend"] for _, panel in panels() if panel["type"] == "timeseries"]
    assert {tuple(legend["calcs"]) for legend in shown} == {("lastNotNull",)}


def test_shares_of_a_whole_are_drawn_up_to_it() -> None:
    for name, panel in panels():
        defaults = panel["fieldConfig"]["defaults"]
        whole = defaults["unit"] == "percentunit" and "stacking" in defaults["custom"]
        assert defaults.get("max") == (1 if whole else None), (name, panel["title"])


def test_table_shows_its_labels_in_order_and_a_value_that_says_something() -> None:
    columns = {}
    for _, panel in panels():
        for step in panel.get("transformations", ()):
            if step["id"] == "organize":
                order, hidden, names = (
                    step["options"][part]
                    for part in ("indexByName", "excludeByName", "renameByName")
                )
                assert sorted(order.values()) == [*range(len(order))]
                shown = [name for name in sorted(order, key=order.get) if name not in hidden]
                columns[panel["title"]] = [names.get(name, name) for name in shown]
    assert columns == {
        "Which stage is which": ["stage", "stage_name", "stage_type", "replicas"],
        "Who listens": ["plugin", "hook", "listening"],
        "Patches that are not applied": ["patch", "status", "reason", "target"],
    }


@pytest.mark.parametrize(
    ("board", "row"), [("images-and-video", "Images"), ("realtime", "Sessions")]
)
def test_four_panels_stand_beside_each_other(board: str, row: str) -> None:
    panels = dashboards()[board]["panels"]
    first = [panel["title"] for panel in panels].index(row) + 1
    assert [panel["gridPos"]["x"] for panel in panels[first : first + 4]] == [0, 6, 12, 18]


def test_panels_of_a_dashboard_do_not_overlap() -> None:
    for name, board in dashboards().items():
        taken: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            grid = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(grid["x"], grid["x"] + grid["w"])
                for y in range(grid["y"], grid["y"] + grid["h"])
            }
            assert not cells & taken, (name, panel["title"])
            assert max(x for x, _ in cells) < 24, (name, panel["title"])
            taken |= cells


def test_links_of_panels_lead_to_headings_of_the_documentation() -> None:
    root = "https://github.com/vllm-omni-metrics-plugin/vllm-omni-metrics-plugin/blob/main/"
    for name, panel in panels():
        path, _, heading = panel["links"][0]["url"].removeprefix(root).partition("#")
        text = (DEPLOY.parent / path).read_text()
        assert not heading or f"\n### {heading}\n" in text, (name, panel["title"])


def test_dashboards_have_the_same_variables_and_names_of_their_own() -> None:
    boards = dashboards()
    assert set(boards) == {"overview", "realtime", "speech", "images-and-video", "stages"}
    assert len({board["uid"] for board in boards.values()}) == len(boards)
    for board in boards.values():
        assert [variable["name"] for variable in board["templating"]["list"]] == VARIABLES


def test_all_means_series_without_the_label_as_well() -> None:
    for board in dashboards().values():
        for variable in board["templating"]["list"][1:]:
            assert variable["includeAll"]
            assert variable["allValue"] == ".*"


def test_variables_take_their_values_from_stages_and_the_stages_names() -> None:
    for board in dashboards().values():
        for variable in board["templating"]["list"][1:]:
            query = variable["query"]["query"]
            (selector,) = re.findall(r"vllm:omni_stage_info(?:\{[^}]*\})?", query)
            assert read(selector, KNOWN).problems == []
        stage = board["templating"]["list"][3]
        # What Grafana makes of the answer, and reads the pattern in.
        shown = '{stage="1",stage_name="code2wav"} 1 1700000000000'
        pattern = stage["regex"].strip("/").replace("(?<", "(?P<")
        found = re.search(pattern, shown)
        assert found is not None
        assert found.groupdict() == {"value": "1", "text": "code2wav"}
        assert "group by (stage, stage_name)" in stage["query"]["query"]


# Alerts


def test_every_alert_is_in_the_runbook_and_leads_there() -> None:
    headings = re.findall(r"^## (\w+)$", (DEPLOY / "runbook.md").read_text(), re.MULTILINE)
    assert headings == list(alerts())
    for name, rule in alerts().items():
        assert rule["annotations"]["runbook_url"].endswith(f"/deploy/runbook.md#{name.lower()}")
        assert rule["labels"]["severity"] in ("page", "ticket")


def test_alert_about_what_is_unmeasured_excuses_what_the_doctor_only_notes() -> None:
    (excused,) = re.findall(r'reason!~"([^"]+)"', alerts()["OmniUnmeasured"]["expr"])
    notes = {reason for reason, (severity, _) in REASONS.items() if severity == "note"}
    assert set(excused.split("|")) == notes


def test_prometheus_reads_the_rules_that_are_there() -> None:
    content = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    assert sorted(content["rule_files"]) == sorted(
        path.name for path in (DEPLOY / "prometheus").glob("*-rules.yml")
    )
    (job,) = content["scrape_configs"]
    assert job["job_name"] == "vllm-omni"

"""The table of ``make test-engines``: what pytest reported, and never more than that."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed import engine_matrix
from testbed.engine_matrix import Result, Run, markdown, read, runs
from testbed.install.environments import DEFAULT, ENVIRONMENTS
from vllm_omni_metrics_plugin.patches.seams.releases import BY_VERSION, RELEASES

REPORT = """<?xml version="1.0" encoding="utf-8"?>
<testsuites><testsuite name="pytest" errors="1" failures="2" skipped="3" tests="16" time="1.0">
<testcase classname="tests" name="test_one" /></testsuite></testsuites>"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(engine_matrix, "REPORTS", tmp_path)
    return Run("0.30.0", "e2e", DEFAULT, ("tests/e2e",))


def test_counts_are_those_of_the_report(run: Run) -> None:
    run.report.write_text(REPORT)

    result = read(run, 90.0, status=1)

    assert (result.passed, result.failed, result.skipped) == (10, 3, 3)
    assert not result.good
    assert result.row() == ("0.30.0", "e2e", "10", "3", "3", "1.5")


def test_tests_that_passed_are_good_and_none_at_all_are_not(run: Run) -> None:
    run.report.write_text('<testsuite errors="0" failures="0" skipped="1" tests="9" />')
    assert read(run, 1.0, status=0).good
    run.report.write_text('<testsuite errors="0" failures="0" skipped="9" tests="9" />')
    assert not read(run, 1.0, status=0).good


@pytest.mark.parametrize("status", [2, 4, 5, -9])
def test_run_that_broke_off_is_not_good_whatever_it_reported(run: Run, status: int) -> None:
    run.report.write_text('<testsuite errors="0" failures="0" skipped="0" tests="9" />')

    result = read(run, 1.0, status)

    assert not result.good
    assert f"pytest ended with status {status}" in markdown([result])


def test_run_without_a_report_is_not_good(run: Run) -> None:
    assert not read(run, 1.0, status=0).good


def test_table_has_a_line_for_each_result(run: Run) -> None:
    lines = markdown([Result(run, 5, 0, 1, 60.0), Result(run, 4, 1, 0, 30.0)]).splitlines()
    assert lines[2:] == ["| 0.30.0 | e2e | 5 | 0 | 1 | 1.0 |", "| 0.30.0 | e2e | 4 | 1 | 0 | 0.5 |"]
    assert {line.count("|") for line in lines} == {7}


def test_every_release_has_its_contract_and_those_installed_run_end_to_end() -> None:
    wanted = {(run.suite, run.release) for run in runs(BY_VERSION, ("contract", "e2e"))}
    assert wanted == {
        *(("contract", release) for release in BY_VERSION),
        *(("e2e", release) for release in ENVIRONMENTS),
    }
    for run in runs(BY_VERSION, ("e2e",)):
        assert run.environment.release == run.release


def test_what_the_plugin_says_was_tested_end_to_end_is_what_the_test_bed_installs() -> None:
    said = {release.version for release in RELEASES if release.tested == "end to end"}
    assert said == set(ENVIRONMENTS)

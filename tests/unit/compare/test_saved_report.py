"""A saved JSON report as a side of a comparison: the same as the results that it was made of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpcbench.compare.comparison import compare
from hpcbench.compare.pairs import match_experiments
from hpcbench.compare.runs import Side
from hpcbench.compare.saved_report import side_of_report
from hpcbench.errors import ReportError
from hpcbench.report import render
from hpcbench.schemas.collection import Collection
from tests.support.compare_cases import collection_of, experiment, side, zeros_and_ones
from tests.support.report_cases import tuner


def saved(path: Path, collection: Collection) -> Side:
    path.write_text(render(collection, format="json"), encoding="utf-8")
    return side_of_report(path, path.name)


def test_a_report_compares_as_its_results_do(tmp_path: Path) -> None:
    before, after = zeros_and_ones(both=10, only_before=2, only_after=9, neither=10)
    views = [experiment(tmp_path / "a", "lora", before), experiment(tmp_path / "a", "full")]
    b = side(experiment(tmp_path / "b", "lora", after), experiment(tmp_path / "b", "full"), source="B")

    by_report = saved(tmp_path / "report.json", collection_of(*views))
    direct, indirect = (compare(a, b, match_experiments(a, b)) for a in (side(*views), by_report))
    assert indirect.pairs == direct.pairs
    assert indirect.warnings == direct.warnings
    assert indirect.pairs[0].comparisons[0].test is not None
    assert indirect.pairs[0].comparisons[0].test.method == "mcnemar"
    assert indirect.before.collected_at == "2026-07-01T12:34:56+00:00"


def test_where_the_samples_are_gone_scores_are_not_paired(tmp_path: Path) -> None:
    view = experiment(tmp_path / "a", "lora", [1.0, 0.0], samples=False)
    a = saved(tmp_path / "report.json", collection_of(view))
    b = side(experiment(tmp_path / "b", "lora", [1.0, 1.0]))

    test = compare(a, b, match_experiments(a, b)).pairs[0].comparisons[0].test
    assert test is not None
    assert (test.method, test.why) == ("unpaired_z", "no scores of single documents were kept")


def test_unfinished_experiments_keep_their_states(tmp_path: Path) -> None:
    by_report, direct = saved(tmp_path / "report.json", tuner()), side_of_collection(tuner())

    assert [(run.name, run.state, run.main_state, run.eval_states) for run in runs(by_report)] == [
        (run.name, run.state, run.main_state, run.eval_states) for run in runs(direct)
    ]


def side_of_collection(collection: Collection) -> Side:
    return side(*(view for suite in collection.suites for view in suite.experiments))


def runs(of: Side) -> list[Any]:
    return [run for found in of.experiments for run in found.runs]


def test_a_suite_and_an_experiment_can_be_chosen(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    saved(path, collection_of(experiment(tmp_path, "x", suite="one"), experiment(tmp_path, "y", suite="two")))

    assert [run.name for run in runs(side_of_report(path, "r", suite="two"))] == ["y"]
    assert [run.name for run in runs(side_of_report(path, "r", pattern="x*"))] == ["x"]
    assert runs(side_of_report(path, "r", suite="two", pattern="x")) == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"kind": "hpcbench-comparison"}'])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)

    with pytest.raises(ReportError) as caught:
        side_of_report(path, "other.json")
    assert str(caught.value) == f"{path}: not a JSON report\n  hint: `hpcbench collect -o report.json` writes one"


def test_a_report_of_an_earlier_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    report = json.loads(render(tuner(), format="json"))
    del report["suites"][0]["experiments"][3]["scores"]
    path.write_text(json.dumps(report))

    with pytest.raises(ReportError) as caught:
        side_of_report(path, "old.json")
    assert str(caught.value) == (
        f"{path}: suites.0.experiments.3.scores: cannot be compared\n"
        "  hint: versions before 0.3 wrote no scores; `hpcbench collect -o report.json` writes a new report"
    )

"""The long form: a row per figure, with what it is of, its error, and which direction is better."""

from __future__ import annotations

import csv
import io

from hpcbench.report import render
from hpcbench.report.long_table import long_table
from hpcbench.schemas.collection import Collection, ExperimentView, SuiteView
from hpcbench.schemas.states import JobState
from tests.support import report_cases as cases
from tests.support.report_parts import COLLECTED_AT, LORA, QWEN, eval_metrics, make_job


def rows(collection: Collection) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(render(collection, format="long"))))


def one(view: ExperimentView) -> Collection:
    return Collection(suites=(SuiteView(name="s", experiments=(view,)),), collected_at=COLLECTED_AT)


def test_score_has_its_task_error_documents_and_direction() -> None:
    (row,) = [row for row in rows(cases.tuner()) if (row["experiment"], row["task"]) == ("lora", "gsm8k")]
    assert {key: row[key] for key in ("metric", "value", "stderr", "n", "higher_is_better")} == {
        "metric": "exact_match,strict-match",
        "value": "0.462",
        "stderr": "0.0137",
        "n": "1319",
        "higher_is_better": "True",
    }
    assert row["use_dora"] == "False"


def test_loss_is_better_where_it_is_lower() -> None:
    found = {row["higher_is_better"] for row in rows(cases.tuner()) if row["metric"] == "eval_loss"}
    assert found == {"False"}


def test_every_metric_of_a_task_has_a_row() -> None:
    metrics = eval_metrics("gsm8k", "exact_match,strict-match", 0.5, stderr=0.01)
    task = metrics.tasks["gsm8k"]
    task = task.model_copy(update={"metrics": {**task.metrics, "exact_match,flexible-extract": 0.6}})
    metrics = metrics.model_copy(update={"tasks": {"gsm8k": task}})
    job = make_job("a", "eval-gsm8k", suite="s", cmd="eval", args=QWEN, metrics=metrics)
    found = rows(one(ExperimentView(suite="s", name="a", cmd="eval", evals=(job,))))
    scores = {row["metric"]: (row["value"], row["stderr"]) for row in found if row["task"]}
    assert scores == {"exact_match,strict-match": ("0.5", "0.01"), "exact_match,flexible-extract": ("0.6", "")}


def test_repeats_are_not_merged() -> None:
    found = [row for row in rows(cases.repeats()) if row["base_experiment"] == "lora-r4" and row["task"]]
    assert [row["value"] for row in found] == ["0.455", "0.43", "0.475"]


def test_experiment_without_a_figure_has_a_row_with_its_state() -> None:
    job = make_job("a", "train", suite="s", args=QWEN | LORA, state=JobState.PENDING)
    (row,) = rows(one(ExperimentView(suite="s", name="a", cmd="sft", main=job)))
    assert (row["state"], row["metric"], row["value"]) == ("pending", "", "")


def test_rows_are_as_long_as_the_header() -> None:
    table = long_table(cases.tuner())
    assert {len(row) for row in table.rows} == {len(table.header)}

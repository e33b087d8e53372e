"""Every benchmark table of SWIFT 2.x and lm-eval, made from records that hold its figures, cell by cell."""

from __future__ import annotations

from html import unescape
from typing import Any

import pytest

from hpcbench.report import render
from hpcbench.report.facts import facts_of
from hpcbench.report.pivot_table import pivot_table
from hpcbench.schemas.collection import Collection, ExperimentView, SuiteView
from hpcbench.schemas.metrics import EvalMetrics, TaskResult
from hpcbench.schemas.report_options import ReportOptions
from tests.support.benchmark_tables import (
    Grid,
    differences,
    export_experiments,
    html_tables,
    pipe_tables,
    sweep_experiments,
    tuner_experiments,
)
from tests.support.published_tables import FEW_SHOTS, LISTS, SWEEPS, published_table, report_of
from tests.support.report_parts import COLLECTED_AT, make_job

REMARK = "a remark of the table's author on the setting, which no record has"
DIFFERENCES: dict[str, dict[tuple[str, str], str]] = {
    "quantization-2023": {("11.73min", "11.73"): "its unit is missing"},
    "lora-rank-2023": {("33.55M", "33.55MB"): "parameters are not bytes"},
    "sequence-parallel": {
        ("gpu=2/sequence_parallel_size=1", "gpu=2/sequence_parallel_size=1(双GPU DDP基准测试)"): REMARK,
        ("gpu=2/sequence_parallel_size=2", "gpu=2/sequence_parallel_size=2(双GPU序列并行2)"): REMARK,
        ("gpu=4/sequence_parallel_size=4", "gpu=4/sequence_parallel_size=4(四GPU序列并行4)"): REMARK,
        ("gpu=4/sequence_parallel_size=2", "gpu=4/sequence_parallel_size=2(四GPU序列并行2)"): REMARK,
        ("0.3iter/s(5h13min total)", "0.30iter/s(5h13min total)"): "beside 0.5 and 1, rounded by hand",
    },
}
"""Cells that come out differently: ours and theirs, with the reason."""
TUNERS: dict[str, dict[tuple[str, str], str]] = {
    "tuners": {
        ("7721.3245(100.0000%)", "-"): "two rows of lisa that were added by hand; a record always has its parameters"
    },
    "unsloth": {
        (
            "rank=8/target=DEFAULT/alpha=32/lr_ratio=None/use_rslora=False/use_dora=False",
            "",
        ): "a row of lora without its settings"
    },
}


def _collection(experiments: tuple[ExperimentView, ...], report: ReportOptions | None = None) -> Collection:
    suite = SuiteView(name="benchmark", experiments=experiments, report=report or ReportOptions())
    return Collection(suites=(suite,), collected_at=COLLECTED_AT)


@pytest.mark.parametrize("name", SWEEPS)
def test_sweep_table_is_made_from_records(name: str) -> None:
    theirs = published_table(SWEEPS[name])
    table = pivot_table([facts_of(view) for view in sweep_experiments(theirs)], report_of(name))
    ours = [[column.header for column in table.columns], *([cell.text for cell in cells] for cells in table.cells)]
    assert differences(ours, theirs.rows) == set(DIFFERENCES.get(name, ()))


@pytest.mark.parametrize("name", SWEEPS)
def test_sweep_table_spans_rows_as_the_benchmark_does(name: str) -> None:
    theirs = published_table(SWEEPS[name])
    text = render(_collection(sweep_experiments(theirs), report_of(name)), format="markdown")
    (ours,) = html_tables(text)
    assert differences(ours.rows, theirs.rows) == set(DIFFERENCES.get(name, ()))
    assert ours.spans == theirs.spans


def test_sweep_table_in_html_spans_rows_too() -> None:
    theirs = published_table(SWEEPS["lengths-lora"])
    page = render(_collection(sweep_experiments(theirs)), format="html", options=report_of("lengths-lora"))
    ours = html_tables(page)[0]
    assert differences(ours.rows, theirs.rows) == set()
    assert ours.spans == theirs.spans


@pytest.mark.parametrize("name", SWEEPS)
def test_sweep_table_in_plain_markdown_leaves_covered_cells_empty(name: str) -> None:
    theirs = published_table(SWEEPS[name])
    options = report_of(name).model_copy(update={"row_spans": False})
    text = render(_collection(sweep_experiments(theirs)), format="markdown", options=options)
    (ours,) = pipe_tables(text)
    covered = {(row + below, column) for (row, column), span in theirs.spans.items() for below in range(1, span)}
    expected = [
        ["" if (row, column) in covered else cell for column, cell in enumerate(cells)]
        for row, cells in enumerate(theirs.rows)
    ]
    assert differences(_unescaped(ours), expected) == set(DIFFERENCES.get(name, ()))


@pytest.mark.parametrize("name", LISTS)
def test_tuner_table_is_made_from_records(name: str) -> None:
    theirs = published_table(LISTS[name])
    make = export_experiments if name == "export" else tuner_experiments
    text = render(_collection(make(theirs)), format="markdown", options=report_of(name))
    (ours,) = pipe_tables(text)
    assert differences(_unescaped(ours), theirs.rows) == set(TUNERS.get(name, ()))


def test_table_of_lm_eval_is_made_from_records() -> None:
    theirs = published_table(FEW_SHOTS)
    text = render(_collection((_evaluated(theirs),)), format="markdown", options=report_of("few-shots"))
    (ours,) = pipe_tables(text)
    assert differences(_unescaped(ours), theirs.rows) == {("strict-match", "trict-match")}  # a slip of the pen


def _unescaped(grid: Grid) -> list[list[str]]:
    return [[unescape(cell) for cell in row] for row in grid.rows]


def _evaluated(grid: Grid) -> ExperimentView:
    """Return an untrained model with an eval for each task that the table names."""
    found: list[dict[str, Any]] = []
    for task, version, filter_name, shots, metric, arrow, value, _, stderr in grid.rows[1:]:
        if task:
            found.append({"task": task, "version": version, "shots": int(shots), "metrics": {}, "better": {}})
        kind = filter_name if filter_name.startswith("flex") else "strict-match"
        found[-1]["metrics"] |= {f"{metric},{kind}": float(value), f"{metric}_stderr,{kind}": float(stderr)}
        found[-1]["better"][metric] = arrow == "↑"
    jobs = []
    for number, values in enumerate(found):
        metrics = EvalMetrics(
            dataset=f"{values['task']}_{values['shots']}shot",
            primary_task=values["task"],
            tasks={
                values["task"]: TaskResult(
                    metrics=values["metrics"],
                    num_samples=1319,
                    num_fewshot=values["shots"],
                    version=values["version"],
                    higher_is_better=values["better"],
                )
            },
        )
        jobs.append(make_job("base", f"eval-{number}", suite="benchmark", cmd="eval", metrics=metrics))
    return ExperimentView(suite="benchmark", name="base", cmd="eval", evals=tuple(jobs))

"""Every benchmark table of SWIFT 2.x and lm-eval, made from records that hold its figures, cell by cell."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
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
from tests.support.places import shared
from tests.support.report_parts import COLLECTED_AT, make_job

LM_EVAL, TIMES, SPEEDS = "001_80ec32dee551a213.txt", "002_3f7b04db992fba31.txt", "004_4db542d1929a5ca8.txt"
MODEL, MEMORY, PARAMETERS = "model_type", "memory_peak_gib", "num_trainable_parameters"
RANK = ("lora_rank", "lora_target_modules")
SWITCHES = ("use_flash_attn", "gradient_checkpointing")


@dataclass(frozen=True, slots=True)
class Case:
    """A table, what makes it, and the cells that come out differently: ours, theirs."""

    file: str
    number: int
    options: ReportOptions
    exceptions: dict[tuple[str, str], str] = field(default_factory=dict)
    """With the reason."""


def in_minutes(number: int, *by: str, exceptions: dict[tuple[str, str], str] | None = None) -> Case:
    """A table that has its units in the cells, and times below the header Training Speed."""
    value = ("train_time_min", "memory_peak_mib", *([PARAMETERS] if by == RANK else []))
    headers = {"train_time_min": "Training Speed"}
    options = ReportOptions(layout="pivot", by=(MODEL, *by), value=value, units="cell", headers=headers)
    return Case(TIMES, number, options, exceptions or {})


def per_second(number: int, *by: str) -> Case:
    """A table that has its units in the header."""
    value = ("train_samples_per_second", MEMORY, *([PARAMETERS] if by == RANK else []))
    return Case(SPEEDS, number, ReportOptions(layout="pivot", by=(MODEL, *by), value=value))


REMARK = "a remark of the table's author on the setting, which no record has"
SWEEPS = {
    "times of quantizations": in_minutes(0, "quantization", exceptions={("11.73min", "11.73"): "its unit is missing"}),
    "times of lengths, full": in_minutes(1, "max_length"),
    "times of lengths, lora": in_minutes(2, "max_length"),
    "times of batch sizes": in_minutes(3, "batch_size"),
    "times of attention and checkpointing": in_minutes(4, *SWITCHES),
    "times of models": in_minutes(5),
    "times of ranks and targets": in_minutes(6, *RANK, exceptions={("33.55M", "33.55MB"): "parameters are not bytes"}),
    "speeds of quantizations": per_second(0, "quantization"),
    "speeds of lengths, lora": per_second(1, "max_length"),
    "speeds of lengths, full": per_second(2, "max_length"),
    "speeds of batch sizes": per_second(3, "batch_size"),
    "speeds of attention and checkpointing": per_second(4, *SWITCHES),
    "speeds of ranks and targets": per_second(5, *RANK),
    "speeds of gradient accumulation": per_second(6, "gradient_accumulation_steps"),
    "sequence parallel": Case(
        SPEEDS,
        7,
        ReportOptions(
            layout="pivot",
            by=(MODEL, "dataset_tokens", "gpu/sequence_parallel_size"),
            value=("num_steps", "steps_per_second", "memory_peak_g"),
            units="cell",
            headers={
                MODEL: "Model",
                "dataset_tokens": "Dataset",
                "gpu/sequence_parallel_size": "Hyper params",
                "num_steps": "Total steps",
                "steps_per_second": "Train speed",
                "memory_peak_g": "Gpu memory",
            },
        ),
        {
            ("gpu=2/sequence_parallel_size=1", "gpu=2/sequence_parallel_size=1(双GPU DDP基准测试)"): REMARK,
            ("gpu=2/sequence_parallel_size=2", "gpu=2/sequence_parallel_size=2(双GPU序列并行2)"): REMARK,
            ("gpu=4/sequence_parallel_size=4", "gpu=4/sequence_parallel_size=4(四GPU序列并行4)"): REMARK,
            ("gpu=4/sequence_parallel_size=2", "gpu=4/sequence_parallel_size=2(四GPU序列并行2)"): REMARK,
            ("0.3iter/s(5h13min total)", "0.30iter/s(5h13min total)"): "beside 0.5 and 1, rounded by hand",
        },
    ),
}  # fmt: skip
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
    "exports": {},
    "awq": {},
    "aqlm": {},
}


@cache
def _text(file: str) -> str:
    return shared(f"seeds/{file}").read_text(encoding="utf-8")


def _collection(experiments: tuple[ExperimentView, ...], report: ReportOptions | None = None) -> Collection:
    suite = SuiteView(name="benchmark", experiments=experiments, report=report or ReportOptions())
    return Collection(suites=(suite,), collected_at=COLLECTED_AT)


@pytest.mark.parametrize("name", SWEEPS)
def test_sweep_table_is_made_from_records(name: str) -> None:
    case = SWEEPS[name]
    theirs = html_tables(_text(case.file))[case.number]
    table = pivot_table([facts_of(view) for view in sweep_experiments(theirs)], case.options)
    ours = [[column.header for column in table.columns], *([cell.text for cell in cells] for cells in table.cells)]
    assert differences(ours, theirs.rows) == set(case.exceptions)


@pytest.mark.parametrize("name", SWEEPS)
def test_sweep_table_spans_rows_as_the_benchmark_does(name: str) -> None:
    case = SWEEPS[name]
    theirs = html_tables(_text(case.file))[case.number]
    report = case.options.model_copy(update={"row_spans": True})
    text = render(_collection(sweep_experiments(theirs), report), format="markdown")
    (ours,) = html_tables(text)
    assert differences(ours.rows, theirs.rows) == set(case.exceptions)
    assert ours.spans == theirs.spans


def test_sweep_table_in_html_spans_rows_too() -> None:
    case = SWEEPS["speeds of lengths, lora"]
    theirs = html_tables(_text(case.file))[case.number]
    page = render(_collection(sweep_experiments(theirs)), format="html", options=case.options)
    ours = html_tables(page)[0]
    assert differences(ours.rows, theirs.rows) == set()
    assert ours.spans == theirs.spans


@pytest.mark.parametrize("name", SWEEPS)
def test_sweep_table_in_plain_markdown_leaves_covered_cells_empty(name: str) -> None:
    case = SWEEPS[name]
    theirs = html_tables(_text(case.file))[case.number]
    text = render(_collection(sweep_experiments(theirs)), format="markdown", options=case.options)
    (ours,) = pipe_tables(text)
    covered = {(row + below, column) for (row, column), span in theirs.spans.items() for below in range(1, span)}
    expected = [
        ["" if (row, column) in covered else cell for column, cell in enumerate(cells)]
        for row, cells in enumerate(theirs.rows)
    ]
    assert differences(_unescaped(ours), expected) == set(case.exceptions)


@pytest.mark.parametrize(("number", "name"), list(enumerate(TUNERS)))
def test_tuner_table_is_made_from_records(number: int, name: str) -> None:
    theirs = pipe_tables(_text(SPEEDS))[number]
    make = export_experiments if name == "exports" else tuner_experiments
    text = render(_collection(make(theirs)), format="markdown", options=ReportOptions(layout="swift"))
    (ours,) = pipe_tables(text)
    assert differences(_unescaped(ours), theirs.rows) == set(TUNERS[name])


def test_table_of_lm_eval_is_made_from_records() -> None:
    (theirs,) = [table for table in pipe_tables(_text(LM_EVAL)) if table.header[0] == "Tasks"]
    text = render(_collection((_evaluated(theirs),)), format="markdown", options=ReportOptions(layout="lm-eval"))
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

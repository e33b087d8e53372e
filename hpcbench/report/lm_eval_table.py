"""The tables that lm-eval prints after an evaluation, one per experiment: every metric of every task.

In: the facts of experiments. Out: tables of the tasks, filters, shots, metrics, values and standard errors of the evals
that completed, in the spelling of lm-eval 0.4; a task's name and version stand in its first row alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hpcbench.report.column import Column
from hpcbench.report.facts import EvalFacts, Facts
from hpcbench.report.rows import Cell
from hpcbench.report.table import Table
from hpcbench.schemas.metrics import EvalMetrics, TaskResult
from hpcbench.schemas.states import JobState

HIGHER, LOWER = "\N{UPWARDS ARROW}", "\N{DOWNWARDS ARROW}"
NOTES = (
    f"{HIGHER}: higher is better, {LOWER}: lower is better; Stderr: standard error of the value over the documents",
    "n-shot: worked examples before each question; Filter: what took the answer out of the model's text",
)


def _column(header: str, *, to_the_right: bool = False) -> Column:
    return Column(key=header or "-", header=header, get=lambda _: None, measured=to_the_right)


COLUMNS = (
    _column("Tasks"),
    _column("Version", to_the_right=True),
    _column("Filter"),
    _column("n-shot", to_the_right=True),
    _column("Metric"),
    _column(""),
    _column("Value", to_the_right=True),
    _column(""),
    _column("Stderr", to_the_right=True),
)


def lm_eval_tables(experiments: Sequence[Facts]) -> tuple[Table, ...]:
    """Return a table for each experiment that has an eval with tasks, titled with its name."""
    found = ((facts, tuple(_cells(facts))) for facts in experiments)
    return tuple(Table(title=facts.view.name, columns=COLUMNS, rows=(), cells=cells) for facts, cells in found if cells)


def left_out_notes(experiments: Sequence[Facts]) -> tuple[str, ...]:
    """Return which evals have no rows, and why."""
    unfinished = [
        f"{facts.view.name} {dataset}: {found.job.state.value}"
        for facts in experiments
        for dataset, found in facts.evals.items()
        if found.job.state is not JobState.COMPLETED
    ]
    without = [facts.view.name for facts in experiments if not facts.evals]
    return (
        *([f"not evaluated: {'; '.join(unfinished)}"] if unfinished else []),
        *([f"without an eval in the suite: {', '.join(without)}"] if without else []),
    )


def _cells(facts: Facts) -> Iterator[tuple[Cell, ...]]:
    for found in facts.evals.values():
        for name, task in _tasks(found):
            first, version = name, task.version or ""
            for texts in _metrics(task):
                filter_name, metric, arrow, value, stderr = texts
                row = (
                    *(first, version, filter_name, "" if task.num_fewshot is None else str(task.num_fewshot), metric),
                    *(arrow, value, "\N{PLUS-MINUS SIGN}" if stderr else "", stderr),
                )
                yield tuple(Cell(text=text) for text in row)
                first = version = ""


def _tasks(found: EvalFacts) -> Iterator[tuple[str, TaskResult]]:
    """Yield a group before its tasks, which a dash shows as its parts, and a single task by itself."""
    metrics: EvalMetrics | None = found.metrics
    if metrics is None:
        return
    group = metrics.tasks.get(metrics.primary_task)
    if group is not None:
        yield metrics.primary_task, group
    dash = "- " if group is not None else ""
    yield from ((f"{dash}{name}", task) for name, task in metrics.tasks.items() if name != metrics.primary_task)


def _metrics(task: TaskResult) -> Iterator[tuple[str, str, str, str, str]]:
    """Yield filter, metric, arrow, value and standard error of each metric, in lm-eval's order: by name."""
    for key, value in sorted(task.metrics.items()):
        metric, _, filter_name = key.partition(",")
        if metric.endswith("_stderr") or value is None:
            continue
        better = task.higher_is_better.get(key, task.higher_is_better.get(metric))
        arrow = "" if better is None else HIGHER if better else LOWER
        stderr = task.metrics.get(f"{metric}_stderr,{filter_name}", task.metrics.get(f"{metric}_stderr"))
        yield filter_name, metric, arrow, _number(value), "" if stderr is None else _number(stderr)


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4f}"

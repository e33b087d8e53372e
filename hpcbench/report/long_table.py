"""The long form of a report: one row per figure, as pandas, R and plotting libraries want their data.

In: a Collection. Out: a header and rows, or CSV. Values are raw and never rounded; repeats are not merged; an
experiment without a figure has one row, whose metric is empty.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass

from hpcbench.report.column import Raw
from hpcbench.report.columns import DATASET, MODEL, TUNER
from hpcbench.report.csv_table import csv_field, data_columns
from hpcbench.report.escape import one_line
from hpcbench.report.facts import EvalFacts, facts_of
from hpcbench.report.score_columns import value_columns
from hpcbench.report.settings import varying_settings
from hpcbench.schemas.collection import Collection

IDENTITY = ("suite", "experiment", "base_experiment", "repeat", "state")
FIGURE = ("metric", "task", "value", "stderr", "n", "higher_is_better")
"""Columns of every long table, around those of the arguments: an argument of the same name begins with `arg_`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LongTable:
    """A header and rows of as many values."""

    header: tuple[str, ...]
    rows: tuple[tuple[Raw, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Figure:
    metric: str
    task: str | None = None
    value: float
    stderr: float | None = None
    n: int | None = None
    higher_is_better: bool | None = None


def long_table(collection: Collection) -> LongTable:
    """Return all figures of all experiments; tasks of a group are named `dataset/task`."""
    experiments = [facts_of(view) for suite in collection.suites for view in suite.experiments]
    settings = {column.key: column for column in (MODEL, DATASET, TUNER, *varying_settings(experiments))}
    measured = [
        column
        for column in (*data_columns(experiments).values(), *value_columns(experiments))
        if column.measured and column.key not in settings
    ]
    rows: list[tuple[Raw, ...]] = []
    for facts in experiments:
        view = facts.view
        head: tuple[Raw, ...] = (
            *(view.suite, view.name, view.base_experiment, facts.repeat, facts.state.value),
            *(column.get(facts) for column in settings.values()),
        )
        figures = [
            _Figure(
                metric=column.key,
                value=value,
                higher_is_better=None if column.better is None else column.better == "higher",
            )
            for column in measured
            if (value := _finite(column.get(facts))) is not None
        ]
        figures += [figure for found in facts.evals.values() for figure in _scores(found)]
        rows += [
            (*head, found.metric, found.task, found.value, found.stderr, found.n, found.higher_is_better)
            for found in figures
        ] or [(*head, *(None for _ in FIGURE))]
    names = (f"arg_{key}" if key in {*IDENTITY, *FIGURE} else key for key in settings)
    return LongTable(header=(*IDENTITY, *names, *FIGURE), rows=tuple(rows))


def render_long(collection: Collection) -> str:
    """Return the long form as CSV."""
    table = long_table(collection)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([one_line(name) for name in table.header])
    writer.writerows([csv_field(value) for value in row] for row in table.rows)
    return stream.getvalue()


def _scores(found: EvalFacts) -> Iterator[_Figure]:
    """Yield every metric of every task of an eval, under lm-eval's names without the filter `none`."""
    if found.metrics is None:
        return
    for name, task in found.metrics.tasks.items():
        for key, raw in task.metrics.items():
            metric, _, kind = key.partition(",")
            value = None if metric.endswith("_stderr") else _finite(raw)
            if value is None:
                continue
            yield _Figure(
                metric=metric if kind == "none" else key,
                task=found.dataset if name == found.metrics.primary_task else f"{found.dataset}/{name}",
                value=value,
                stderr=_finite(task.metrics.get(f"{metric}_stderr,{kind}" if kind else f"{metric}_stderr")),
                n=task.num_samples,
                higher_is_better=task.higher_is_better.get(key, task.higher_is_better.get(metric)),
            )


def _finite(value: object) -> float | None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    return value if math.isfinite(value) else None

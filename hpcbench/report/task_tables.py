"""Tables of the tasks of a group that has no score of lm-eval's: one row per task, one column per experiment.

In: rows of a report. Out: tables. A group that has a score keeps its tasks' figures in the JSON report.
"""

from __future__ import annotations

from collections.abc import Sequence

from hpcbench.report.cells import number_text
from hpcbench.report.column import Column
from hpcbench.report.facts import Facts, Score
from hpcbench.report.rows import MISSING, Cell, Row, column_cells
from hpcbench.report.table import Table

TASK = Column(key="task", header="task", get=lambda _: None)
METRIC = Column(key="metric", header="metric", get=lambda _: None)
DOCUMENTS = Column(key="num_samples", header="documents", get=lambda _: None, measured=True)


def task_tables(rows: Sequence[Row]) -> tuple[Table, ...]:
    """Return a table for each eval dataset whose tasks stand for themselves in some row."""
    found: dict[str, dict[tuple[str, str], Score]] = {}
    for facts in (facts for row in rows for facts in row.members):
        for dataset, evaluated in facts.evals.items():
            for task, score in evaluated.tasks.items():
                found.setdefault(dataset, {}).setdefault((task, score.metric), score)
    return tuple(_table(dataset, scores, rows) for dataset, scores in found.items())


def _table(dataset: str, scores: dict[tuple[str, str], Score], rows: Sequence[Row]) -> Table:
    with_tasks = [row for row in rows if any(_has_tasks(facts, dataset) for facts in row.members)]
    cells = tuple(
        (
            Cell(text=task),
            Cell(text=metric),
            Cell(text=str(score.num_samples)),
            *column_cells(_task_column(dataset, task, score), with_tasks),
        )
        for (task, metric), score in scores.items()
    )
    columns = [Column(key=row.name, header=row.name, get=lambda _: None, measured=True) for row in with_tasks]
    return Table(
        title=f"{dataset}: its tasks", columns=(TASK, METRIC, DOCUMENTS, *columns), rows=tuple(with_tasks), cells=cells
    )


def _has_tasks(facts: Facts, dataset: str) -> bool:
    return dataset in facts.evals and bool(facts.evals[dataset].tasks)


def _task_column(dataset: str, task: str, shown: Score) -> Column:
    """Return the column whose cells, one per experiment, become the row of a task."""

    def score(facts: Facts) -> Score | None:
        found = facts.evals[dataset].tasks.get(task) if dataset in facts.evals else None
        return found if found is not None and found.metric == shown.metric else None

    def show(facts: Facts) -> str:
        found = score(facts)
        assert found is not None  # noqa: S101 -- cell_text asks for values that are there
        text = number_text(found.value, 3)
        return text if found.stderr is None else f"{text} ± {number_text(found.stderr, 3)}"

    return Column(
        key=task,
        header=task,
        get=lambda facts: None if (found := score(facts)) is None else found.value,
        show=show,
        decimals=3,
        better="higher" if shown.higher_is_better else "lower",
        peers=lambda facts: None if (found := score(facts)) is None else (found.num_samples, found.num_fewshot),
        measured=True,
        missing=MISSING,
    )

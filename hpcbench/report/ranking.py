"""The order of rows by one figure: complete ones before all others, the best first.

In: rows and a column. Out: the same rows in another order. Rows without the figure, or with repeats that have not
completed, are never before one that is complete.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from hpcbench.report.column import Column
from hpcbench.report.columns import EVAL_LOSS, TRAIN_LOSS
from hpcbench.report.rows import Row, average
from hpcbench.report.score_columns import columns_by_dataset


def main_column(rows: Sequence[Row], columns: Sequence[Column], wanted: str | None = None) -> Column | None:
    """Return the column that rows are ranked by where a picture has room for few: the wanted one, a score, a loss."""
    experiments = [facts for row in rows for facts in row.members]
    scores = columns_by_dataset(experiments)
    usual = (*chain.from_iterable(scores.values()), EVAL_LOSS, TRAIN_LOSS)
    named = [*(column for column in columns if column.key == wanted), *scores.get(wanted or "", ())]
    candidates = (column for column in (*named, *usual, *columns) if column.better is not None and column.measured)
    return next((column for column in candidates if any(average(column, row) for row in rows)), None)


def ranked(rows: Sequence[Row], column: Column | None) -> tuple[Row, ...]:
    """Return complete rows from the best figure to the worst, then the others as they stand."""
    if column is None:
        return tuple(rows)
    sign = -1.0 if column.better == "higher" else 1.0

    def place(row: Row) -> tuple[bool, float]:
        found = average(column, row) if row.completed else None
        if found is None or found.num_values < len(row.members):
            return True, 0.0
        return False, sign * found.value

    return tuple(sorted(rows, key=place))

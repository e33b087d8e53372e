"""Which rows are best, and which are within its error: the same rows that every format marks.

In: the rows of one suite and the page's columns. Out: names of rows per column, in groups of rows that may be compared.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

from hpcbench.report.csv_table import score_values
from hpcbench.report.escape import one_line
from hpcbench.report.page.columns import PageColumn
from hpcbench.report.rows import Row, average, best_rows
from hpcbench.storage.json_files import JsonObject


def best_of(rows: Sequence[Row], columns: Sequence[PageColumn]) -> dict[str, list[JsonObject]]:
    """Return, by column, the best rows of each group of peers and those within the error."""
    found: dict[str, list[JsonObject]] = {}
    for page_column in columns:
        best = best_rows(page_column.column, rows)
        groups: dict[Hashable, list[int]] = {}
        for number in sorted(best):
            groups.setdefault(_peers(page_column, rows[number]), []).append(number)
        for peers, winners in groups.items():
            if len(winners) == _num_comparable(page_column, rows, peers):
                continue  # all are the same, so none is best
            near = [
                number
                for number, row in enumerate(rows)
                if number not in best
                and row.completed
                and _peers(page_column, row) == peers
                and _within_error(page_column, rows[winners[0]], row)
            ]
            found.setdefault(page_column.column.key, []).append(
                {"rows": [one_line(rows[n].name) for n in winners], "near": [one_line(rows[n].name) for n in near]}
            )
    return found


def _peers(page_column: PageColumn, row: Row) -> Hashable:
    column = page_column.column
    if column.peers is None:
        return None
    return column.peers(next((facts for facts in row.members if column.get(facts) is not None), row.first))


def _num_comparable(page_column: PageColumn, rows: Sequence[Row], peers: Hashable) -> int:
    return sum(average(page_column.column, row) is not None and _peers(page_column, row) == peers for row in rows)


def _within_error(page_column: PageColumn, best: Row, row: Row) -> bool:
    """Return whether two rows differ by no more than the error of their difference, where either has an error."""
    column = page_column.column
    first, second = average(column, best), average(column, row)
    errors = (_error(page_column, best), _error(page_column, row))
    if first is None or second is None or errors == (None, None):
        return False
    return abs(first.value - second.value) <= math.hypot(*(error or 0.0 for error in errors))


def _error(page_column: PageColumn, row: Row) -> float | None:
    """Return the standard error of a row's figure: of the mean over repeats, else the score's own."""
    column = page_column.column
    found = average(column, row)
    if found is not None and found.std is not None:
        return found.std / math.sqrt(found.num_values)
    error = score_values(row.first).get(f"{column.key}_stderr")
    return float(error) * column.scale if isinstance(error, (int, float)) else None

"""Which rows are best, and which are within its error: the same rows that every format marks.

In: the rows of one suite and the page's columns. Out: names of rows per column, in groups of rows that may be compared.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from hpcbench.report.escape import one_line
from hpcbench.report.page.columns import PageColumn
from hpcbench.report.rows import Row, Standing, average, peers_of, standings_of
from hpcbench.storage.json_files import JsonObject


def best_of(rows: Sequence[Row], columns: Sequence[PageColumn]) -> dict[str, list[JsonObject]]:
    """Return, by column, the best rows of each group of peers and those within the error."""
    found: dict[str, list[JsonObject]] = {}
    for page_column in columns:
        for standing in standings_of(page_column.column, rows):
            if not _is_tie_of_all(page_column, rows, standing):
                names = {
                    "rows": [one_line(rows[number].name) for number in standing.best],
                    "near": [one_line(rows[number].name) for number in standing.near],
                }
                found.setdefault(page_column.column.key, []).append(names)
    return found


def _is_tie_of_all(page_column: PageColumn, rows: Sequence[Row], standing: Standing) -> bool:
    """Return whether all comparable rows are the same, so that none is best."""
    peers = peers_of(page_column.column, rows[standing.best[0]])
    return len(standing.best) == _num_comparable(page_column, rows, peers)


def _num_comparable(page_column: PageColumn, rows: Sequence[Row], peers: Hashable) -> int:
    column = page_column.column
    return sum(average(column, row) is not None and peers_of(column, row) == peers for row in rows)

"""A table of a report as values: columns, and cells that are plain text, not yet escaped for any format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hpcbench.report.column import Column
from hpcbench.report.rows import Cell, Row, column_cells


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table."""

    title: str
    """Empty for the main table of the default layout."""
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    cells: tuple[tuple[Cell, ...], ...]
    """One tuple per row, one cell per column."""
    as_html: bool = False
    """Whether Markdown has it as HTML, whose cells can span rows."""


def build_table(columns: Sequence[Column], rows: Sequence[Row], *, title: str = "") -> Table:
    """Return a table with every cell filled in."""
    by_column = [column_cells(column, rows) for column in columns]
    return Table(
        title=title, columns=tuple(columns), rows=tuple(rows), cells=tuple(zip(*by_column, strict=True)) if rows else ()
    )

"""A table of the report as HTML for a notebook: no style, no script, everything foreign escaped."""

from __future__ import annotations

from html import escape

from hpcbench.report.escape import one_line
from hpcbench.report.rows import Cell
from hpcbench.report.table import Table


def table_html(table: Table, *, caption: str) -> str:
    """Return the table with its caption; the best cells of a column are bold."""
    head = "".join(f"<th>{_text(column.header)}</th>" for column in table.columns)
    rows = (f"<tr>{''.join(map(_cell, cells))}</tr>" for cells in table.cells)
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f"<table><caption>{_text(caption)}</caption>{body}</table>"


def _cell(cell: Cell) -> str:
    text = _text(cell.text)
    return f"<td><b>{text}</b></td>" if cell.best else f"<td>{text}</td>"


def _text(text: str) -> str:
    return escape(one_line(text))

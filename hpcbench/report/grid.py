"""Grids of a sweep: one figure over one setting or more, the last of several makes the columns.

In: the facts of experiments, the settings and the figure. Out: a table. A cell is the mean over all experiments that
agree in these settings: repeats, and whatever else the sweep varies.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from hpcbench.report.column import Column, Raw, cell_text
from hpcbench.report.facts import Facts
from hpcbench.report.rows import MISSING, Cell, Row, column_cells
from hpcbench.report.settings import varying_settings
from hpcbench.report.table import Table

_EMPTY = Cell(text="", kind="missing")
Place = tuple[Raw, ...]
"""Values of the settings, one each."""


def grid_table(figure: Column, by: Sequence[Column], experiments: Sequence[Facts]) -> Table:
    """Return the table of one figure; the values of a single setting are its rows."""
    of_place: dict[Place, list[Facts]] = {}
    for facts in experiments:
        of_place.setdefault(tuple(column.get(facts) for column in by), []).append(facts)
    rows = {place: Row(name=_name(by, members[0]), members=tuple(members)) for place, members in of_place.items()}
    cells = dict(zip(rows, column_cells(figure, list(rows.values())), strict=True))
    depth = max(len(by) - 1, 1)
    lines, heads = (_in_order(place[part] for place in rows) for part in (slice(depth), slice(depth, None)))
    first = {place[:depth]: row for place, row in reversed(rows.items())}
    return Table(
        title=f"{figure.header} by {', '.join(column.header for column in by)}",
        columns=(*by[:depth], *(_head(figure, by[depth:], head, rows) for head in heads)),
        rows=tuple(first[line] for line in lines),
        cells=tuple(
            (
                *(_setting_cell(column, first[line].first) for column in by[:depth]),
                *(cells.get((*line, *head), _EMPTY) for head in heads),
            )
            for line in lines
        ),
    )


def grid_notes(by: Sequence[Column], figures: Sequence[Column], experiments: Sequence[Facts]) -> tuple[str, ...]:
    """Return what a cell of the grid is, and what it is a mean over."""
    keys = {column.key for column in by}
    others = [column.header for column in varying_settings(experiments) if column.key not in keys]
    others += ["repeats"] if any(facts.repeat is not None for facts in experiments) else []
    notes = [column.note for column in figures if column.note]
    if others:
        notes.append(
            f"a cell is the mean ± sample standard deviation over {', '.join(others)}; (n=3): over three experiments, "
            "(n=1 of 3): one of three has a figure yet"
        )
    return (*notes, "bold: the best of all cells whose experiments all have a figure")


def _head(figure: Column, down: Sequence[Column], head: Place, rows: dict[Place, Row]) -> Column:
    """Return the column of one value of the last setting."""
    if not down:
        return figure
    member = next(row.first for place, row in rows.items() if place[-1:] == head)
    return replace(figure, key=f"{down[0].key}={head[0]}", header=_name(down, member))


def _setting_cell(column: Column, facts: Facts) -> Cell:
    text = cell_text(column, facts)
    return Cell(text=column.missing, kind="missing") if text is None else Cell(text=text)


def _in_order(places: Iterable[Place]) -> list[Place]:
    """Return different places, numbers by size before texts, missing values last."""
    return sorted(set(places), key=lambda place: [_rank(value) for value in place])


def _rank(value: Raw) -> tuple[int, float, str]:
    if value is None:
        return 2, 0.0, ""
    return (1, 0.0, value) if isinstance(value, str) else (0, float(value), "")


def _name(columns: Sequence[Column], facts: Facts) -> str:
    return ", ".join(f"{column.header} {cell_text(column, facts) or MISSING}" for column in columns)

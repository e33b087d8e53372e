"""The best experiments by one figure: with their settings, their other figures and where their weights are.

In: rows, and the column that ranks them. Out: a table, best row first, and what it leaves out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from hpcbench.errors import name_first, plural
from hpcbench.report import columns as c
from hpcbench.report.column import Column, Raw
from hpcbench.report.facts import Facts
from hpcbench.report.layouts import result_columns, told_settings
from hpcbench.report.rows import MISSING, Cell, Row, average, peers_of
from hpcbench.report.table import Table, build_table

CHECKPOINT_NOTE = "checkpoint: the folder of the weights that evals take; of repeats that of the best one"


def _checkpoint(facts: Facts) -> Raw:
    main, train = facts.view.main, facts.train
    if main is None or train is None:
        return None
    path = train.choose_checkpoint(None)[1]
    return None if path is None else str(main.folder / path)


CHECKPOINT = Column(key="checkpoint", header="checkpoint", get=_checkpoint, note=CHECKPOINT_NOTE)


def ranked_rows(column: Column, rows: Sequence[Row]) -> list[Row]:
    """Return the rows that compete in a column, the best first; rows that are equal keep their order."""
    found = [(average(column, row), row) for row in rows]
    figures = [(one.value, row) for one, row in found if one is not None and one.num_values == len(row.members)]
    return [row for _, row in sorted(figures, key=lambda each: -each[0] if column.better == "higher" else each[0])]


def best_table(column: Column, rows: Sequence[Row], *, top: int | None, columns: Sequence[Column] = ()) -> Table:
    """Return the table of the best rows; `columns` replaces the figures and settings that they are shown with."""
    shown = ranked_rows(column, rows)[:top]
    experiments = [facts for row in rows for facts in row.members]
    others = columns or (
        *(
            other
            for other in result_columns(experiments)
            if any(other.value(facts) is not None for facts in experiments)
        ),
        *told_settings(experiments),
        CHECKPOINT,
    )
    keys = {c.NAME.key: c.NAME, column.key: column} | {other.key: other for other in others}
    table = build_table(tuple(keys.values()), shown, title=f"Best by {column.header}")
    place = list(keys).index(CHECKPOINT.key) if CHECKPOINT.key in keys else None
    if place is None:
        return table
    found = [
        (*cells[:place], _checkpoint_cell(column, row), *cells[place + 1 :])
        for row, cells in zip(shown, table.cells, strict=True)
    ]
    return replace(table, cells=tuple(found))


def _checkpoint_cell(column: Column, row: Row) -> Cell:
    """Return the checkpoint of the member whose figure is best."""
    sign = -1.0 if column.better == "higher" else 1.0
    best = min(
        row.members,
        key=lambda facts: sign * value if isinstance(value := column.value(facts), (int, float)) else math.inf,
    )
    path = _checkpoint(best)
    return Cell(text=MISSING, kind="missing") if path is None else Cell(text=str(path))


def best_table_notes(column: Column, rows: Sequence[Row], *, top: int | None) -> tuple[str, ...]:
    """Return what the ranking leaves out and what makes it doubtful."""
    ranked = ranked_rows(column, rows)
    found = {id(row) for row in ranked}
    unranked = [row.name for row in rows if id(row) not in found]
    notes = []
    if top is not None and len(ranked) > top:
        notes.append(f"left out: {plural(len(ranked) - top, 'row')} that rank lower")
    if unranked:
        notes.append(f"not ranked, since the figure is missing or not all repeats have it: {name_first(unranked)}")
    if len({peers_of(column, row) for row in ranked}) > 1:
        notes.append(
            f"{column.header}: not all ranked rows may be compared: they differ in model, data, hardware or number of "
            "documents and shots"
        )
    return tuple(notes)

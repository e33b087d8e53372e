"""The columns of the page: each with its place, its kind, and how its numbers are printed.

In: the rows of all suites. Out: `PageColumn`s, results first. A column without a single value is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from hpcbench.report.column import Column, Raw, cell_text
from hpcbench.report.columns import DATA_ONLY
from hpcbench.report.facts import Facts
from hpcbench.report.layouts import table_columns
from hpcbench.report.rows import Row
from hpcbench.report.settings import varying_settings
from hpcbench.storage.json_files import JsonObject

Kind = Literal["figure", "setting", "text"]
Group = Literal["result", "varies", "more"]

OWN_PLACES = frozenset({"suite", "experiment", "base_experiment", "cmd", "state"})
"""Keys of what each experiment of the page holds apart from its values."""
JOINED = frozenset({"tuner_params", "hypers"})
"""Keys of columns that join several arguments, which have columns to themselves on the page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageColumn:
    """One column as the page shows it."""

    column: Column
    kind: Kind
    group: Group
    decimals: int

    def payload(self) -> JsonObject:
        """Return what the page is told about it."""
        column = self.column
        return {
            "key": column.key,
            "label": " ".join((column.short or column.header or column.key).split()),
            "kind": self.kind,
            "better": column.better,
            "decimals": self.decimals,
            "scale": column.scale,
            "group": self.group,
            "note": column.note,
        }


def page_columns(suites: Sequence[Sequence[Row]]) -> tuple[PageColumn, ...]:
    """Return every column that has a value in some suite, results before arguments that vary before the rest."""
    found: dict[str, PageColumn] = {}
    for rows in suites:
        for column in _columns_of(rows):
            known = found.get(column.column.key)
            if known is None or _rank(column) < _rank(known):
                found[column.column.key] = column
    return tuple(sorted(found.values(), key=_rank))


def _rank(column: PageColumn) -> int:
    return ("result", "varies", "more").index(column.group)


def _columns_of(rows: Sequence[Row]) -> Iterable[PageColumn]:
    experiments = [facts for row in rows for facts in row.members]
    settings = varying_settings(experiments)
    known = {column.key for column in settings}
    shown = [column for column in table_columns(rows) if column.key not in OWN_PLACES | known]
    known |= {column.key for column in shown}
    for column in shown:
        values = [value for value in map(column.get, experiments) if value is not None]
        if column.measured:
            yield _page_column(column, values, kind="figure", group="result")
        else:
            varies = len(set(values)) > 1 and column.key not in JOINED
            yield _page_column(column, values, kind=_kind(values), group="varies" if varies else "more")
    for column in settings:
        yield _page_column(column, map(column.get, experiments), kind="setting", group="varies")
    for column in DATA_ONLY:
        values = [value for value in map(column.get, experiments) if value is not None]
        if column.key not in known and column.key not in OWN_PLACES and values:
            yield _page_column(column, values, kind=_kind(values), group="more")


def _kind(values: Iterable[Raw]) -> Kind:
    return (
        "figure" if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values) else "text"
    )


def _page_column(column: Column, values: Iterable[Raw], *, kind: Kind, group: Group) -> PageColumn:
    numbers = [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    is_whole = not column.measured and column.scale == 1 and all(isinstance(value, int) for value in numbers)
    return PageColumn(column=column, kind=kind, group=group, decimals=0 if is_whole else column.decimals)


def shown_text(column: Column, facts: Facts) -> str | None:
    """Return the short text of a cell, as in the terminal; None where nothing is known."""
    if column.get(facts) is None:
        return None if column.state is None else column.state(facts)
    return column.brief(facts) if column.brief is not None else cell_text(replace(column, show=None), facts)

"""The columns of the page: each with its place, its kind, and how its numbers are printed.

In: the rows of all suites. Out: `PageColumn`s, results first. A column without a single value is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

from hpcbench.report import cost
from hpcbench.report.cells import number_text
from hpcbench.report.column import Column, Raw
from hpcbench.report.columns import DATA_ONLY
from hpcbench.report.escape import one_line
from hpcbench.report.facts import Facts
from hpcbench.report.layouts import table_columns
from hpcbench.report.rows import Row
from hpcbench.report.settings import number_setting, varying_settings
from hpcbench.storage.json_files import JsonObject

Kind = Literal["figure", "setting", "text"]
Group = Literal["result", "varies", "more"]

OWN_PLACES = frozenset({"suite", "experiment", "base_experiment", "cmd", "state"})
"""Keys of what each experiment of the page holds apart from its values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageColumn:
    """One column as the page shows it."""

    column: Column
    kind: Kind
    group: Group
    decimals: int

    def payload(self, headers: Mapping[str, str]) -> JsonObject:
        """Return what the page is told about it; `headers` has those that were asked for, by key."""
        column = self.column
        return {
            "key": column.key,
            "label": one_line(headers.get(column.key) or column.short or column.header or column.key),
            "kind": self.kind,
            "better": column.better,
            "decimals": self.decimals,
            "scale": column.scale,
            "group": self.group,
            "note": column.note,
        }


def page_columns(suites: Sequence[Sequence[Row]], named: Sequence[Sequence[Column]] = ()) -> tuple[PageColumn, ...]:
    """Return every column that has a value in some suite, results before arguments that vary before the rest.

    Args:
        suites: the rows of each suite.
        named: the columns that each suite's options name, which may say the same of all its experiments.
    """
    found: dict[str, PageColumn] = {}
    for rows, asked in zip_longest(suites, named, fillvalue=()):
        for column in _columns_of(rows, asked):
            known = found.get(column.column.key)
            if known is None or _rank(column) < _rank(known):
                found[column.column.key] = column
    return tuple(sorted(found.values(), key=_rank))


def _rank(column: PageColumn) -> int:
    return ("result", "varies", "more").index(column.group)


def _columns_of(rows: Sequence[Row], named: Sequence[Column]) -> Iterable[PageColumn]:
    experiments = [facts for row in rows for facts in row.members]
    settings = {column.key for column in varying_settings(experiments)}
    told = {column.key: column for column in table_columns(rows) if column.key not in OWN_PLACES}
    for column in told.values():
        values = [column.value(facts) for facts in experiments]
        kind: Kind = "setting" if column.key in settings else "figure" if column.measured else _kind(values)
        yield _page_column(column, values, kind=kind, group="result" if column.measured else "varies")
    for column in {column.key: column for column in (*DATA_ONLY, *cost.DATA_ONLY, *named)}.values():
        if column.key in told or column.key in OWN_PLACES:
            continue
        values = [column.value(facts) for facts in experiments]
        if any(value is not None for value in values):
            yield _page_column(column, values, kind=_kind(values), group="more")


def _kind(values: Iterable[Raw]) -> Kind:
    return "figure" if all(value is None or _is_number(value) for value in values) else "text"


def _page_column(column: Column, values: Iterable[Raw], *, kind: Kind, group: Group) -> PageColumn:
    is_whole = (
        not column.measured and column.scale == 1 and all(value is None or type(value) is int for value in values)
    )
    return PageColumn(column=column, kind=kind, group=group, decimals=0 if is_whole else column.decimals)


def _is_number(value: Raw) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def told_text(page_column: PageColumn, facts: Facts, raw: Raw) -> str | None:
    """Return the short text of a cell, as in the terminal, where it is not what the page makes of `raw` by itself."""
    column = page_column.column
    if raw is None:
        return None if column.state is None else column.state(facts)
    if column.brief is not None:
        text = column.brief(facts)
    elif column.show is not None and not column.measured:
        text = column.show(facts)
    elif column.unit is not None:
        number = str(raw) if isinstance(raw, (str, bool)) else number_text(raw * column.scale, column.decimals)
        text = number + column.unit(facts)
    else:
        return None
    return None if text == _own_text(page_column, raw) else text


def _own_text(page_column: PageColumn, raw: Raw) -> str:
    """Return what the page prints of a value by itself, as `templates/report/numbers.js` does."""
    if raw is None or isinstance(raw, (str, bool)):
        return str(raw)
    number = raw * page_column.column.scale
    return number_setting(number) if page_column.kind == "setting" else number_text(number, page_column.decimals)

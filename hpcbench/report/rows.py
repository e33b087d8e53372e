"""Rows of a report: repeats merged, the best of a column marked among comparable rows, by figures as printed."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Literal

from hpcbench.report.cells import number_text
from hpcbench.report.column import Column, cell_text
from hpcbench.report.columns import NAME, STATE
from hpcbench.report.facts import Facts
from hpcbench.schemas.states import JobState

MISSING = "-"
VARIES = "varies"

CellKind = Literal["value", "missing", "state"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell: plain text, not yet escaped for any format."""

    text: str
    best: bool = False
    kind: CellKind = "value"
    span: int = 1
    """Rows that it covers; 0 where the cell above covers this one, and has the same text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of a table: an experiment, or all repeats of one."""

    name: str
    members: tuple[Facts, ...]
    """Never empty."""

    @property
    def first(self) -> Facts:
        """The experiment, or the first of its repeats."""
        return self.members[0]

    @property
    def completed(self) -> bool:
        """Whether everything that belongs to the row is done."""
        return all(facts.state is JobState.COMPLETED for facts in self.members)


@dataclass(frozen=True, slots=True, kw_only=True)
class Averaged:
    """A figure over the members of a row that have it."""

    value: float
    std: float | None
    """Sample standard deviation; None for fewer than two values."""
    num_values: int


def merge_repeats(experiments: Iterable[Facts]) -> tuple[Row, ...]:
    """Return rows in file order; experiments with the same `base_experiment` share the place of the first of them."""
    groups: dict[tuple[str, str], list[Facts]] = {}
    for facts in experiments:
        base = facts.view.base_experiment
        key = ("experiment", facts.view.name) if base is None else ("base", base)
        groups.setdefault(key, []).append(facts)
    return tuple(
        Row(name=key[1] if len(members) > 1 else members[0].view.name, members=tuple(members))
        for key, members in groups.items()
    )


def average(column: Column, row: Row) -> Averaged | None:
    """Return the mean of a measured column over a row's members, in printed units; None where there is no number."""
    if not column.measured:
        return None
    raws = map(column.get, row.members)
    return averaged(raw * column.scale for raw in raws if isinstance(raw, (int, float)) and not isinstance(raw, bool))


def averaged(values: Iterable[float]) -> Averaged | None:
    """Return mean and sample standard deviation of finite values, or None without any."""
    finite = [float(value) for value in values if math.isfinite(value)]
    if not finite:
        return None
    try:
        std = stdev(finite) if len(finite) > 1 else None
    except OverflowError:
        std = None
    return Averaged(value=mean(finite), std=std if std is None or math.isfinite(std) else None, num_values=len(finite))


def column_cells(column: Column, rows: Sequence[Row]) -> tuple[Cell, ...]:
    """Return one cell per row, the best ones marked."""
    best = best_rows(column, rows)
    return tuple(_cell(column, row, best=number in best) for number, row in enumerate(rows))


def best_rows(column: Column, rows: Sequence[Row]) -> frozenset[int]:
    """Return the indices of the best rows: per group of peers, ties as printed included, none among fewer than two."""
    if column.better is None:
        return frozenset()
    groups: defaultdict[Hashable, dict[int, float]] = defaultdict(dict)
    for number, row in enumerate(rows):
        found = average(column, row)
        if found is not None:
            peers = None if column.peers is None else _peers(column, row)
            groups[peers][number] = float(number_text(found.value, column.decimals))
    best: set[int] = set()
    for values in groups.values():
        if len(values) > 1:
            goal = min(values.values()) if column.better == "lower" else max(values.values())
            best |= {number for number, value in values.items() if value == goal}
    return frozenset(best)


def _peers(column: Column, row: Row) -> Hashable:
    assert column.peers is not None  # noqa: S101
    with_value = next((facts for facts in row.members if column.get(facts) is not None), row.first)
    return column.peers(with_value)


def _cell(column: Column, row: Row, *, best: bool) -> Cell:
    if column.key == NAME.key:
        return Cell(text=row.name)
    if column.key == STATE.key:
        return Cell(text=row_state_text(row), kind="state")
    text = cell_text(column, row.first) if len(row.members) == 1 else _merged_text(column, row)
    if text is not None and text != "":
        return Cell(text=text, best=best)
    return _empty_cell(column, row)


def _merged_text(column: Column, row: Row) -> str | None:
    found = average(column, row)
    if found is not None:
        unit = column.unit(row.first) if column.unit is not None else ""
        spread = "" if found.std is None else f" ± {number_text(found.std, column.decimals)}"
        return f"{number_text(found.value, column.decimals)}{spread}{unit} (n={found.num_values})"
    texts = {text for text in (cell_text(column, facts) for facts in row.members) if text is not None}
    if not texts:
        return None
    return texts.pop() if len(texts) == 1 else VARIES


def _empty_cell(column: Column, row: Row) -> Cell:
    states = {column.state(facts) for facts in row.members} - {None} if column.state is not None else set()
    if len(states) == 1:
        return Cell(text=str(states.pop()), kind="state")
    return Cell(text=column.missing, kind="missing")


def row_state_text(row: Row) -> str:
    """Return the state of a row in words; repeats are counted by state."""
    if len(row.members) == 1:
        text = cell_text(STATE, row.first)
        return text or MISSING
    counts = Counter(facts.state.value for facts in row.members)
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))

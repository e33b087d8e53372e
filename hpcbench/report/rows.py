"""Rows of a report: repeats merged, the best of a column marked among comparable rows, by figures as printed."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean
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
    near: bool = False
    """Whether it cannot be told from the best."""
    kind: CellKind = "value"
    span: int = 1
    """Rows that it covers; 0 where the cell above covers this one, and has the same text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of a table: an experiment, or all repeats of one."""

    name: str
    members: tuple[Facts, ...]
    """Never empty."""
    averages: dict[object, Averaged | None] = field(default_factory=dict, compare=False, repr=False)
    """Means of columns that were computed before, by what read the values and their scale."""

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
    place = column.get, column.scale
    if place not in row.averages:
        raws = map(column.value, row.members)
        row.averages[place] = averaged(
            [raw * column.scale for raw in raws if isinstance(raw, (int, float)) and not isinstance(raw, bool)]
        )
    return row.averages[place]


def averaged(values: Iterable[float]) -> Averaged | None:
    """Return mean and sample standard deviation of finite values, or None without any."""
    finite = [float(value) for value in values if math.isfinite(value)]
    if not finite:
        return None
    if len(finite) == 1:
        return Averaged(value=finite[0], std=None, num_values=1)
    return Averaged(value=_mean(finite), std=_deviation(finite), num_values=len(finite))


def _mean(values: Sequence[float]) -> float:
    """Return the mean; `statistics.mean` adds fractions, which takes twenty times as long for the same figures."""
    if min(values) == max(values):
        return values[0]
    try:
        return math.fsum(values) / len(values)
    except OverflowError:
        return mean(values)


def _deviation(values: Sequence[float]) -> float | None:
    """Return the sample standard deviation, None where it is beyond what a float can hold."""
    center = _mean(values)
    try:
        found = math.sqrt(math.fsum((value - center) ** 2 for value in values) / (len(values) - 1))
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How the comparable rows of one column stand."""

    best: tuple[int, ...]
    """Numbers of the best rows, ties as printed included."""
    near: tuple[int, ...]
    """Numbers of the rows that cannot be told from the best: the difference is within its standard error."""


def column_cells(column: Column, rows: Sequence[Row]) -> tuple[Cell, ...]:
    """Return one cell per row, the best ones and those within the error of the best marked."""
    standings = standings_of(column, rows)
    best = {number for standing in standings for number in standing.best}
    near = {number for standing in standings for number in standing.near}
    return tuple(_cell(column, row, best=number in best, near=number in near) for number, row in enumerate(rows))


def best_rows(column: Column, rows: Sequence[Row]) -> frozenset[int]:
    """Return the numbers of the best rows."""
    return frozenset(number for standing in standings_of(column, rows) for number in standing.best)


def standings_of(column: Column, rows: Sequence[Row]) -> tuple[Standing, ...]:
    """Return how rows stand, per group of peers with two rows or more that compete.

    Repeats compete once all of them have a figure: the first of three to finish may be a lucky one.
    """
    if column.better is None:
        return ()
    groups: defaultdict[Hashable, dict[int, Averaged]] = defaultdict(dict)
    for number, row in enumerate(rows):
        found = average(column, row)
        if found is not None and found.num_values == len(row.members):
            groups[peers_of(column, row)][number] = found
    return tuple(_stand(column, rows, found) for found in groups.values() if len(found) > 1)


def _stand(column: Column, rows: Sequence[Row], found: Mapping[int, Averaged]) -> Standing:
    printed = {number: float(number_text(figure.value, column.decimals)) for number, figure in found.items()}
    goal = min(printed.values()) if column.better == "lower" else max(printed.values())
    best = tuple(number for number, value in printed.items() if value == goal)
    errors = {number: standard_error(column, rows[number], figure) for number, figure in found.items()}
    winner = found[best[0]], errors[best[0]]
    near = tuple(
        number
        for number, figure in found.items()
        if number not in best and _is_within_error(winner, (figure, errors[number]))
    )
    return Standing(best=best, near=near)


def standard_error(column: Column, row: Row, found: Averaged) -> float | None:
    """Return the standard error of a row's figure in printed units: of the mean over repeats, else the figure's own."""
    if found.std is not None:
        return found.std / math.sqrt(found.num_values)
    error = None if column.error is None else column.error(row.first)
    return None if error is None else error * column.scale


def _is_within_error(one: tuple[Averaged, float | None], other: tuple[Averaged, float | None]) -> bool:
    """Return whether figures differ by no more than the standard error of their difference."""
    (first, first_error), (second, second_error) = one, other
    if first_error is None or second_error is None:
        return False
    return abs(first.value - second.value) <= math.hypot(first_error, second_error)


def peers_of(column: Column, row: Row) -> Hashable:
    """Return what a row's figure may be compared within; rows of the same are peers."""
    if column.peers is None:
        return None
    return column.peers(_measured_one(column, row))


def _measured_one(column: Column, row: Row) -> Facts:
    return next((facts for facts in row.members if column.value(facts) is not None), row.first)


def _cell(column: Column, row: Row, *, best: bool, near: bool) -> Cell:
    if column.key == NAME.key:
        return Cell(text=row.name)
    if column.key == STATE.key:
        return Cell(text=row_state_text(row), kind="state")
    text = cell_text(column, row.first) if len(row.members) == 1 else _merged_text(column, row)
    if text is not None and text != "":
        return Cell(text=text, best=best, near=near)
    return _empty_cell(column, row)


def _merged_text(column: Column, row: Row) -> str | None:
    found = average(column, row)
    if found is not None:
        unit = column.unit(_measured_one(column, row)) if column.unit is not None else ""
        spread = "" if found.std is None else f" ± {number_text(found.std, column.decimals)}"
        return f"{number_text(found.value, column.decimals)}{spread}{unit} ({_count(found, row)})"
    texts = {text for text in (cell_text(column, facts) for facts in row.members) if text is not None}
    if not texts:
        return None
    return texts.pop() if len(texts) == 1 else VARIES


def _count(found: Averaged, row: Row) -> str:
    is_complete = found.num_values == len(row.members)
    return f"n={found.num_values}" if is_complete else f"n={found.num_values} of {len(row.members)}"


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

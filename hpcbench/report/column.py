"""What a column of a report is: a raw value, how it is printed, which value is better."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Literal

from hpcbench.report.cells import number_text
from hpcbench.report.facts import Facts

Raw = float | str | None
"""A value as CSV and JSON give it; int and bool are floats to the type checker."""

Better = Literal["lower", "higher"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a report."""

    key: str
    """Name in CSV and JSON, unit included."""
    header: str = ""
    """Name in tables; that of SWIFT 2.x where it has one."""
    get: Callable[[Facts], Raw]
    show: Callable[[Facts], str] | None = None
    """Cell of an experiment that has a value; None prints the value itself."""
    decimals: int = 2
    """Digits of a printed number, which also decide what counts as a tie."""
    scale: float = 1.0
    """Printed number per raw number."""
    unit: Callable[[Facts], str] | None = None
    """What follows a mean over repeats, and the number in the terminal."""
    better: Better | None = None
    peers: Callable[[Facts], Hashable] | None = None
    """Only experiments with the same peers are compared."""
    error: Callable[[Facts], float | None] | None = None
    """Standard error of the raw value of one experiment, where it has one."""
    measured: bool = False
    """Repeats of it are averaged, where a setting is shown once."""
    state: Callable[[Facts], str | None] | None = None
    """Text of the cell instead of a figure, for example `OOM` or `blocked`."""
    missing: str = "-"
    """Text of the cell when nothing is known."""
    note: str = ""
    """What the figure means, for the notes below a table."""
    legend: tuple[tuple[str, str], ...] = ()
    """Words or signs in the column's cells and what each means; the notes explain those that occur."""
    short: str = ""
    """Header in the terminal, where it differs."""
    brief: Callable[[Facts], str] | None = None
    """Cell in the terminal, where it is shorter."""

    def value(self, facts: Facts) -> Raw:
        """Return what `get` reads, which is kept: a table asks for each value several times, from cells to notes."""
        get, known = self.get, facts.values
        if get not in known:
            known[get] = get(facts)
        return known[get]


def cell_text(column: Column, facts: Facts) -> str | None:
    """Return the cell of one experiment, or None where nothing is known."""
    raw = column.value(facts)
    if raw is None:
        return None
    if column.show is not None:
        return column.show(facts)
    if isinstance(raw, (str, bool)):
        return str(raw)
    number = raw * column.scale
    text = f"{number:g}" if isinstance(raw, int) and not column.measured else number_text(number, column.decimals)
    return text + (column.unit(facts) if column.unit is not None else "")

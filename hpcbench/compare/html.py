"""The HTML form of a comparison: one file that runs no program, in the look of `collect`'s page.

In: a `ComparisonReport`. Out: HTML. Beside its numbers each tested difference is drawn, as a point with its 95 %
interval around the line of no difference; all of a table have one scale.
"""

from __future__ import annotations

from dataclasses import dataclass

from hpcbench.compare.result import ComparisonReport, Verdict
from hpcbench.compare.wording import (
    NUM_TEXT_COLUMNS,
    Lines,
    change_texts,
    condition_texts,
    counts_text,
    left_out_texts,
    notes,
    side_texts,
    tables,
)
from hpcbench.report.page.frame import STYLE_OF_TABLES, render_without_program

TEMPLATE = "compare.html.j2"
STYLE = "compare.css"
_HALF_WIDTH = 96
"""Of a drawing, in its own units, without the radius of its point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnInterval:
    """A difference and its interval, as places on a line from -96 to 96."""

    low: str
    middle: str
    high: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnLine:
    """One line of a table."""

    cells: tuple[str, ...]
    verdict: Verdict
    drawn: DrawnInterval | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnTable:
    """A table with its intervals drawn."""

    title: str
    headers: tuple[str, ...]
    lines: tuple[DrawnLine, ...]
    has_intervals: bool


def render_html(report: ComparisonReport) -> str:
    """Return the whole page."""
    outcomes = [found.outcome != "passed" for found in report.conditions]
    return render_without_program(
        TEMPLATE,
        STYLE_OF_TABLES,
        STYLE,
        report=report,
        sides=list(side_texts(report)),
        counts=counts_text(report),
        tables=[_draw(table) for table in tables(report)],
        conditions=list(zip(condition_texts(report), outcomes, strict=True)),
        left_out=list(left_out_texts(report)),
        settings=list(change_texts(report.pairs)),
        notes=list(notes(report)),
        num_text_columns=NUM_TEXT_COLUMNS,
    )


def _draw(table: Lines) -> DrawnTable:
    reach = max((abs(end) for line in table.lines if line.ends is not None for end in line.ends), default=0.0)
    has_intervals = reach > 0
    return DrawnTable(
        title=table.title,
        headers=(*table.headers, "difference, 95 %") if has_intervals else table.headers,
        lines=tuple(
            DrawnLine(
                cells=line.cells,
                verdict=line.verdict,
                drawn=_interval(line.ends, reach) if has_intervals and line.ends is not None else None,
            )
            for line in table.lines
        ),
        has_intervals=has_intervals,
    )


def _interval(ends: tuple[float, float, float], reach: float) -> DrawnInterval:
    low, middle, high = (f"{end / reach * _HALF_WIDTH:.1f}" for end in ends)
    return DrawnInterval(low=low, middle=middle, high=high)

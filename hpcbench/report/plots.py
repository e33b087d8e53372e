"""Bar charts of a table's columns with a better and a worse end, as geometry (px) for the template's inline SVG."""

from __future__ import annotations

from dataclasses import dataclass

from hpcbench.report.cells import number_text
from hpcbench.report.column import Column
from hpcbench.report.escape import one_line
from hpcbench.report.rows import average
from hpcbench.report.table import Table

WIDTH_PX = 460
LABEL_PX = 150
VALUE_PX = 84
BAR_PX = 16
STEP_PX = 24
_MOST_BARS = 30
_LABEL_LIMIT = 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One row's value."""

    label: str
    text: str
    y_px: int
    length_px: float
    spread_px: float
    """Half the length of the error bar; 0 for none."""
    is_best: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One column as bars from zero."""

    title: str
    better: str
    height_px: int
    bars: tuple[Bar, ...]


def bar_charts(table: Table) -> tuple[Chart, ...]:
    """Return a chart per column that can be compared and has at least two values."""
    charts = (_chart(table, number, column) for number, column in enumerate(table.columns) if column.better is not None)
    return tuple(chart for chart in charts if chart is not None)


def _chart(table: Table, number: int, column: Column) -> Chart | None:
    found = [
        (row, cells[number].best, averaged)
        for row, cells in zip(table.rows, table.cells, strict=True)
        if (averaged := average(column, row)) is not None
    ][:_MOST_BARS]
    longest = max((averaged.value + (averaged.std or 0.0) for _, _, averaged in found), default=0.0)
    # Bars start at zero, so negative figures have none; one bar compares with nothing.
    if len(found) < 2 or not 0 < longest < float("inf") or any(averaged.value < 0 for _, _, averaged in found):  # noqa: PLR2004
        return None
    scale = (WIDTH_PX - LABEL_PX - VALUE_PX) / longest
    bars = tuple(
        Bar(
            label=one_line(row.name, limit=_LABEL_LIMIT),
            text=number_text(averaged.value, column.decimals),
            y_px=place * STEP_PX,
            length_px=round(averaged.value * scale, 1),
            spread_px=round((averaged.std or 0.0) * scale, 1),
            is_best=is_best,
        )
        for place, (row, is_best, averaged) in enumerate(found)
    )
    unit = " (GiB)" if column.key == "memory_peak_gib" else ""
    return Chart(
        title=column.header + unit, better=f"{column.better} is better", height_px=len(bars) * STEP_PX, bars=bars
    )

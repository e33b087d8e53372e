"""The form of a comparison that a terminal shows: it fits itself to width, colour and encoding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

from hpcbench.compare.result import ComparisonReport, Verdict
from hpcbench.compare.wording import (
    NUM_TEXT_COLUMNS,
    Line,
    Lines,
    change_texts,
    condition_texts,
    counts_text,
    left_out_texts,
    notes,
    side_texts,
    tables,
)
from hpcbench.errors import plural
from hpcbench.report.escape import ascii_text, one_line

MOST_LINES = 40
"""Lines of a table; where there are more, those that differ significantly come first and the others are counted."""
LEAST_TOLD = ("p", "95 % interval")
"""Columns that go first where the terminal is too narrow."""
_CELL_LIMIT = 36
_GAP = 2
_STYLES: dict[Verdict, str] = {
    "better": "bold green",
    "worse": "bold red",
    "different": "bold yellow",
    "not_significant": "dim",
    "not_tested": "",
    "missing": "dim",
}


@dataclass(frozen=True, slots=True)
class TerminalComparison:
    """A comparison that rich can print."""

    report: ComparisonReport

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from _parts(self.report, width=options.max_width, ascii_only=options.ascii_only)


def render_terminal(report: ComparisonReport) -> TerminalComparison:
    """Return what `rich.console.Console.print` shows of a comparison."""
    return TerminalComparison(report)


def _parts(report: ComparisonReport, *, width: int, ascii_only: bool) -> Iterator[RenderableType]:
    def lines(texts: Iterable[str], style: str = "", *, prefix: str = "") -> Iterator[Text]:
        for text in texts:
            yield _text(f"{prefix}{text}", style, ascii_only=ascii_only)

    yield from lines(side_texts(report))
    yield from lines([counts_text(report)], "bold")
    for table in tables(report):
        yield Text()
        yield from lines([table.title], "bold")
        yield from _table(table, width=width, ascii_only=ascii_only)
    for part in (
        lines(condition_texts(report), prefix="--fail-if "),
        lines(report.warnings, "yellow", prefix="warning: "),
        lines(left_out_texts(report)),
        lines(change_texts(report.pairs), prefix="setting: "),
        lines(notes(report), "dim", prefix="note: "),
    ):
        texts = list(part)
        yield from [Text(), *texts] if texts else []


def _table(table: Lines, *, width: int, ascii_only: bool) -> Iterator[RenderableType]:
    shown = _most_telling(table.lines)
    rows = [line.cells for line in shown]
    left_out = []
    places = list(range(len(table.headers)))
    for header in LEAST_TOLD:
        if header in table.headers and _width(table.headers, rows, places) > width:
            places.remove(table.headers.index(header))
            left_out.append(header)
    if _width(table.headers, rows, places) > width:
        rows = [line.brief for line in shown]
        left_out.append("±")
    drawn = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold", collapse_padding=True)
    for place in places:
        is_text = place < NUM_TEXT_COLUMNS
        # What is still too wide is cut in names, not in figures.
        least = None if is_text else _column_width(table.headers, rows, place)
        drawn.add_column(
            table.headers[place],
            justify="left" if is_text else "right",
            no_wrap=True,
            overflow="ellipsis",
            min_width=least,
        )
    for line, row in zip(shown, rows, strict=True):
        drawn.add_row(*(_cell(line, row[place], place, ascii_only=ascii_only) for place in places))
    yield drawn
    parts = [f"{', '.join(left_out)} (too narrow)"] if left_out else []
    if len(shown) < len(table.lines):
        parts.append(f"{plural(len(table.lines) - len(shown), 'line')} without a significant difference")
    if parts:
        yield _text(f"not shown here: {'; '.join(parts)}; --format markdown shows all", "dim", ascii_only=ascii_only)


def _most_telling(lines: Sequence[Line]) -> list[Line]:
    """Return at most so many lines as a reader takes in, in their order: significant ones before others."""
    ranks = {"better": 0, "worse": 0, "different": 0, "missing": 1}
    by_rank = sorted(range(len(lines)), key=lambda place: (ranks.get(lines[place].verdict, 2), place))
    return [lines[place] for place in sorted(by_rank[:MOST_LINES])]


def _width(headers: Sequence[str], rows: Sequence[Sequence[str]], places: Sequence[int]) -> int:
    return sum(_column_width(headers, rows, place) + _GAP for place in places) - _GAP


def _column_width(headers: Sequence[str], rows: Sequence[Sequence[str]], place: int) -> int:
    texts = (headers[place], *(one_line(row[place], limit=_CELL_LIMIT) for row in rows))
    return max(cell_len(text) for text in texts)


def _cell(line: Line, text: str, place: int, *, ascii_only: bool) -> Text:
    is_told = place == 0 or place >= NUM_TEXT_COLUMNS + 2  # name, difference and what the test says
    style = _STYLES[line.verdict] if is_told else ""
    return _text(text, style, ascii_only=ascii_only, limit=_CELL_LIMIT)


def _text(text: str, style: str = "", *, ascii_only: bool, limit: int | None = None) -> Text:
    shown = one_line(text.replace("`", ""), limit=limit)
    return Text(ascii_text(shown) if ascii_only else shown, style=style)

"""The short report for a terminal, as a rich renderable that fits itself to width, colour and encoding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

from hpcbench.report import columns as c
from hpcbench.report.cells import number_text
from hpcbench.report.column import Column
from hpcbench.report.document import counts_text, moment_text
from hpcbench.report.escape import one_line
from hpcbench.report.facts import Facts, facts_of
from hpcbench.report.notes_and_warnings import Failure, failures_of, others_note, warnings_of
from hpcbench.report.rows import MISSING, Cell, Row, average, column_cells, merge_repeats, row_state_text
from hpcbench.report.score_columns import eval_columns, value_columns
from hpcbench.schemas.collection import Collection, SuiteView
from hpcbench.schemas.progress import parse_progress
from hpcbench.schemas.states import STATE_STYLES, JobState

_NAME_LIMIT = 30
_TEXT_LIMIT = 24
_GAP = 2
_MOST_FAILURES = 5
_LEAST_TOLD = (
    c.INFER_SPEED.key,
    c.TRAINABLE.key,
    c.TUNER.key,
    c.ROUGE_L.key,
    c.REWARD_MARGIN.key,
    c.REWARD_ACCURACY.key,
    c.TRAIN_LOSS.key,
    c.MEMORY.key,
    c.TRAIN_SPEED.key,
)
"""Columns that go first where the console is too narrow, in this order; then scores and reported values."""

_NOT_ASCII = str.maketrans({"±": "+-", "…": "...", "●": "*", "✔": "ok", "\N{MULTIPLICATION SIGN}": "x"})


@dataclass(frozen=True, slots=True)
class TerminalReport:
    """A collection that rich can print."""

    collection: Collection

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        collected_at = moment_text(self.collection.collected_at)
        for suite in self.collection.suites:
            yield _suite(suite, collected_at, width=options.max_width, ascii_only=options.ascii_only)
        for warning in self.collection.warnings:
            yield _text(f"warning: {one_line(warning)}", "yellow", ascii_only=options.ascii_only)
        if not self.collection.suites:
            yield Text("No experiments found.")


@dataclass(frozen=True, slots=True)
class _Drawn:
    key: str
    header: str
    cells: tuple[Text, ...]
    is_figure: bool

    @property
    def width(self) -> int:
        return max(cell_len(line) for line in (*self.header.split("\n"), *(cell.plain for cell in self.cells)))


def render_terminal(collection: Collection) -> TerminalReport:
    """Return what `rich.console.Console.print` shows of a collection."""
    return TerminalReport(collection)


def _suite(suite: SuiteView, collected_at: str, *, width: int, ascii_only: bool) -> RenderableType:
    experiments = [facts_of(view) for view in suite.experiments]
    rows = merge_repeats(experiments)
    name = _text(one_line(suite.name), "bold", ascii_only=ascii_only)
    parts: list[RenderableType] = [
        Text(),
        Text.assemble(name, (f"  {counts_text(experiments)}; collected {one_line(collected_at)}", "dim")),
        Text(),
    ]
    if rows:
        parts += _table(rows, width=width, ascii_only=ascii_only)
    failures = failures_of(experiments)
    notices = [
        _text(f"warning: {one_line(text)}", "yellow", ascii_only=ascii_only) for text in warnings_of(experiments)
    ]
    others = others_note(suite)
    notices += [] if others is None else [_text(one_line(others), "dim", ascii_only=ascii_only)]
    notices += [
        line for failure in failures[:_MOST_FAILURES] for line in _failure_lines(failure, ascii_only=ascii_only)
    ]
    if len(failures) > _MOST_FAILURES:
        notices.append(Text(f"and {len(failures) - _MOST_FAILURES} more; the report lists them all", style="dim"))
    return Group(*parts, *([Text(), *notices] if notices else []))


def _table(rows: Sequence[Row], *, width: int, ascii_only: bool) -> list[RenderableType]:
    drawn = [_draw(column, rows, ascii_only=ascii_only) for column in _columns(rows)]
    if all(row.completed for row in rows) and _width(drawn) > width:
        drawn.pop()  # the title says already that everything is completed
    drawn, left_out = _fit(drawn, width)
    table = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold", collapse_padding=True)
    for column in drawn:
        table.add_column(
            Text(column.header), justify="right" if column.is_figure else "left", no_wrap=True, overflow="ellipsis"
        )
    for number in range(len(rows)):
        table.add_row(*(column.cells[number] for column in drawn))
    if not left_out:
        return [table]
    names = ", ".join(one_line(column.header) for column in left_out)
    return [table, _text(f"not shown here: {names}; see the report", "dim", ascii_only=ascii_only)]


def _columns(rows: Sequence[Row]) -> list[Column]:
    experiments = [facts for row in rows for facts in row.members]
    candidates = (
        c.TUNER,
        c.TRAINABLE,
        c.MEMORY,
        c.TRAIN_SPEED,
        c.INFER_SPEED,
        c.TRAIN_LOSS,
        c.EVAL_LOSS,
        c.ROUGE_L,
        c.REWARD_MARGIN,
        c.REWARD_ACCURACY,
        *value_columns(experiments),
        *eval_columns(experiments),
    )
    found = [column for column in candidates if any(cell.kind != "missing" for cell in column_cells(column, rows))]
    return [c.NAME, *found, c.STATE]


def _fit(columns: Sequence[_Drawn], width: int) -> tuple[list[_Drawn], list[_Drawn]]:
    """Return the columns that fit into `width`, and those that had to go; the first and the last always stay."""
    kept = list(columns)
    rank = {key: number for number, key in enumerate(_LEAST_TOLD)}
    left_out: list[_Drawn] = []

    def importance(place: int) -> tuple[int, int]:
        return rank.get(kept[place].key, len(rank)), -place

    while _width(kept) > width and len(kept) > 3:  # noqa: PLR2004
        place = min(range(1, len(kept) - 1), key=importance)
        left_out.append(kept.pop(place))
    return kept, left_out


def _width(columns: Sequence[_Drawn]) -> int:
    return sum(column.width + _GAP for column in columns) - _GAP


def _draw(column: Column, rows: Sequence[Row], *, ascii_only: bool) -> _Drawn:
    cells = column_cells(column, rows)
    header = "\n".join(one_line(line, limit=_TEXT_LIMIT) for line in (column.short or column.header).split("\n"))
    return _Drawn(
        key=column.key,
        header=_ascii(header) if ascii_only else header,
        cells=tuple(_cell(column, row, cell, ascii_only=ascii_only) for row, cell in zip(rows, cells, strict=True)),
        is_figure=column.measured or column.key == c.TRAINABLE.key,
    )


def _cell(column: Column, row: Row, cell: Cell, *, ascii_only: bool) -> Text:
    if column.key == c.STATE.key:
        return _state(row, ascii_only=ascii_only)
    if column.key == c.NAME.key:
        repeats = f" \N{MULTIPLICATION SIGN}{len(row.members)}" if len(row.members) > 1 else ""
        return _text(one_line(row.name, limit=_NAME_LIMIT) + repeats, "bold", ascii_only=ascii_only)
    if cell.kind == "missing":
        return Text(MISSING, style="dim")
    if cell.kind == "state":
        return _text(cell.text, _style_of(cell.text), ascii_only=ascii_only)
    text = one_line(_brief(column, row) or cell.text, limit=_TEXT_LIMIT)
    return _text(text, "bold green" if cell.best else "", ascii_only=ascii_only)


def _brief(column: Column, row: Row) -> str:
    if len(row.members) == 1 or not column.measured:
        return "" if column.brief is None or column.get(row.first) is None else column.brief(row.first)
    averaged = average(column, row)
    if averaged is None:
        return ""
    spread = "" if averaged.std is None else f" ± {number_text(averaged.std, column.decimals)}"
    mark = column.unit(row.first) if column.unit is not None else ""
    return f"{number_text(averaged.value, column.decimals)}{spread}{mark}"


def _state(row: Row, *, ascii_only: bool) -> Text:
    states = {facts.state for facts in row.members}
    if len(states) > 1:
        return _text(f"● {one_line(row_state_text(row), limit=_NAME_LIMIT)}", "yellow", ascii_only=ascii_only)
    state = row.first.state
    detail = _progress(row.first) if len(row.members) == 1 else ""
    mark = "✔" if state is JobState.COMPLETED else "●"
    return _text(f"{mark} {state.value}{detail}", STATE_STYLES[state], ascii_only=ascii_only)


def _progress(facts: Facts) -> str:
    for job in facts.view.jobs:
        progress = parse_progress(job.progress if job.state is JobState.RUNNING else {})
        if progress.done is not None:
            return f" {progress.done:.0f}" if progress.total is None else f" {progress.done / progress.total:.0%}"
    return ""


def _style_of(state: str) -> str:
    """Return the style of a state's name; `OOM` is the one name that is none."""
    return STATE_STYLES[JobState(state)] if state in set(JobState) else STATE_STYLES[JobState.OUT_OF_MEMORY]


def _failure_lines(failure: Failure, *, ascii_only: bool) -> list[Text]:
    what = f" {one_line(failure.experiment)} {one_line(failure.job)}"
    message = f": {one_line(failure.message, limit=160)}" if failure.message else ""
    head = Text.assemble(
        (failure.state.value, STATE_STYLES[failure.state]),
        _text(what, "bold", ascii_only=ascii_only),
        _text(message, "", ascii_only=ascii_only),
    )
    steps = [_text(f"  next: {one_line(str(step))}", "dim", ascii_only=ascii_only) for step in failure.steps]
    for step in steps:
        step.no_wrap, step.overflow = True, "ignore"  # a command that is copied from two lines is two commands
    return [head, *steps]


def _text(text: str, style: str, *, ascii_only: bool) -> Text:
    return Text(_ascii(text) if ascii_only else text, style=style)


def _ascii(text: str) -> str:
    return text.translate(_NOT_ASCII).encode("ascii", "replace").decode("ascii")

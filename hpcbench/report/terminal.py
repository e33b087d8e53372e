"""The short report for a terminal, as a rich renderable that fits itself to width, colour and encoding.

Results come first. Of many rows it shows the best; what has no room, rows or columns, is counted and named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

from hpcbench.errors import name_first
from hpcbench.invocation import command, quoted
from hpcbench.report import columns as c
from hpcbench.report import infer_columns
from hpcbench.report.causes import group_by_cause
from hpcbench.report.cells import number_text
from hpcbench.report.choose import KnownColumns, choose_columns, has_other_tables
from hpcbench.report.column import Column
from hpcbench.report.cost import cost_text
from hpcbench.report.document import counts_text, moment_text
from hpcbench.report.escape import ascii_text, cut_middle, one_line
from hpcbench.report.facts import Facts, facts_of
from hpcbench.report.layouts import shared_text, table_columns
from hpcbench.report.next_steps import Step
from hpcbench.report.notes_and_warnings import Failure, failures_of, others_note, warnings_of
from hpcbench.report.ranking import main_column, ranked
from hpcbench.report.rows import MISSING, Cell, Row, average, column_cells, merge_repeats, row_state_text
from hpcbench.schemas.collection import Collection, SuiteView
from hpcbench.schemas.progress import parse_progress
from hpcbench.schemas.report_options import ReportOptions
from hpcbench.schemas.states import STATE_STYLES, JobState

_NAME_LIMIT = 30
_TEXT_LIMIT = 24
_GAP = 2
_MOST_FAILURES = 5
"""Causes that are told."""
_MOST_LINES = 2
"""Lines that tell what all rows have in common."""
_NAMED = 3
"""Jobs of one cause that are named."""
_MOST_ROWS = 40
"""Rows up to which all are shown, as the suite has them."""
_BEST_ROWS = 20
"""Rows that are shown of more."""
_LEAST_TOLD = (
    c.TRAINABLE.key,
    c.GLOBAL_BATCH.key,
    c.ATTENTION.key,
    c.TOKEN_SPEED.key,
    c.MFU.key,
    c.TRAIN_REWARD_MARGIN.key,
    c.REWARDS_CHOSEN.key,
    c.REWARDS_REJECTED.key,
    *(column.key for column in infer_columns.SHOWN),
    c.INFER_SPEED.key,
)
"""Columns that go first where the console is too narrow, in this order."""
_LESS_TOLD = (c.TRAIN_LOSS.key, c.MEMORY.key, c.TRAIN_SPEED.key)
"""Figures that go before the settings that every row has."""
_WHAT_RAN = frozenset({c.TUNER.key, c.MODEL.key, c.DATASET.key})
"""Settings that are told although a baseline has none."""


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
    def importance(self) -> tuple[int, int]:
        """What decides which column goes first: sparse settings, then all rows' settings, then scores and losses."""
        groups = (_LEAST_TOLD, (), _LESS_TOLD)
        found = next((number for number, keys in enumerate(groups) if self.key in keys), None)
        if found is not None:
            return found, groups[found].index(self.key)
        if self.key == c.STATE.key:
            return 5, 0
        is_sparse = any(cell.plain == MISSING for cell in self.cells) and self.key not in _WHAT_RAN
        return 4 if self.is_figure else 1 if is_sparse else 3, 0

    @property
    def width(self) -> int:
        return max(cell_len(line) for line in (*self.header.split("\n"), *(cell.plain for cell in self.cells)))


def render_terminal(collection: Collection) -> TerminalReport:
    """Return what `rich.console.Console.print` shows of a collection."""
    return TerminalReport(collection)


def _suite(suite: SuiteView, collected_at: str, *, width: int, ascii_only: bool) -> RenderableType:
    experiments = [facts_of(view) for view in suite.experiments]
    rows = merge_repeats(experiments)
    columns = _columns(rows, suite.report) if rows else []
    name = _text(one_line(suite.name), "bold", ascii_only=ascii_only)
    parts: list[RenderableType] = [
        Text(),
        Text.assemble(name, (f"  {counts_text(experiments)}; collected {one_line(collected_at)}", "dim")),
        Text(),
    ]
    shared = "" if len(rows) == 1 else shared_text(rows)
    if shared:
        parts[-1:] = [
            _text(f"all: {one_line(shared, limit=_MOST_LINES * width - 5)}", "dim", ascii_only=ascii_only),
            Text(),
        ]
    if rows:
        parts += _table(_choose_rows(rows, columns), columns, width=width, ascii_only=ascii_only)
    if len(rows) > _MOST_ROWS:
        parts.append(_text(_left_out(rows, columns), "dim", ascii_only=ascii_only))
    if has_other_tables(suite.report):
        text = f"the tables that the suite asks for: {command('collect', suite.name, '--format', 'markdown')}"
        parts.append(_text(text, "dim", ascii_only=ascii_only))
    if cost := cost_text(experiments):
        parts.append(_text(f"cost: {cost}", "dim", ascii_only=ascii_only))
    failures = failures_of(experiments)
    notices = [
        _text(f"warning: {one_line(text)}", "yellow", ascii_only=ascii_only) for text in warnings_of(experiments)
    ]
    others = others_note(suite)
    notices += [] if others is None else [_text(one_line(others), "dim", ascii_only=ascii_only)]
    groups = group_by_cause(failures, lambda failure: (failure.state, failure.message))
    notices += [line for group in groups[:_MOST_FAILURES] for line in _failure_lines(group, ascii_only=ascii_only)]
    if left := sum(len(group) for group in groups[_MOST_FAILURES:]):
        notices.append(Text(f"and {left} more, see {quoted('why', suite.name)}", style="dim"))
    return Group(*parts, *([Text(), *notices] if notices else []))


def _choose_rows(rows: Sequence[Row], columns: Sequence[Column]) -> Sequence[Row]:
    """Return all rows as the suite has them, or the best of many."""
    if len(rows) <= _MOST_ROWS:
        return rows
    return ranked(rows, main_column(rows, columns))[:_BEST_ROWS]


def _left_out(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """Return how many rows are not shown, by state, and which figure the others are the best by."""
    shown = {id(row) for row in _choose_rows(rows, columns)}
    counts = Counter(_state_of_all(row) for row in rows if id(row) not in shown)
    told = ", ".join(f"{count} {state}" for state, count in counts.most_common())
    column = main_column(rows, columns)
    by = "" if column is None else f", the best by {_header(column).replace(chr(10), ' ')}"
    return f"{_BEST_ROWS} of {len(rows)} rows{by}; not shown here: {told}; see the report"


def _state_of_all(row: Row) -> str:
    states = {facts.state.value for facts in row.members}
    return states.pop() if len(states) == 1 else "with repeats that did not all complete"


def _table(rows: Sequence[Row], columns: Sequence[Column], *, width: int, ascii_only: bool) -> list[RenderableType]:
    drawn = [_draw(column, rows, ascii_only=ascii_only) for column in columns]
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


def _columns(rows: Sequence[Row], options: ReportOptions) -> list[Column]:
    """Return the columns of the suite's `report:` block, else those that have something to say about the rows."""
    chosen = table_columns(rows)
    if options.columns and not has_other_tables(options):
        known = KnownColumns([facts for row in rows for facts in row.members])
        chosen = choose_columns(options.columns, known) or chosen
        headed = (replace(column, short=options.headers.get(column.key, column.short)) for column in chosen)
        chosen = tuple(headed)
    return [c.NAME, *(column for column in chosen if column.key not in {c.NAME.key, c.STATE.key}), c.STATE]


def _fit(columns: Sequence[_Drawn], width: int) -> tuple[list[_Drawn], list[_Drawn]]:
    """Return the columns that fit into `width`, and those that had to go; names, states and one figure always stay."""
    kept = list(columns)
    left_out: list[_Drawn] = []
    while _width(kept) > width and len(kept) > 2 + (kept[-1].key == c.STATE.key):
        place = min(range(1, len(kept)), key=lambda place: (*kept[place].importance, -place))
        left_out.append(kept.pop(place))
    return kept, left_out


def _width(columns: Sequence[_Drawn]) -> int:
    return sum(column.width + _GAP for column in columns) - _GAP


def _draw(column: Column, rows: Sequence[Row], *, ascii_only: bool) -> _Drawn:
    cells = column_cells(column, rows)
    header = _header(column)
    return _Drawn(
        key=column.key,
        header=ascii_text(header) if ascii_only else header,
        cells=tuple(_cell(column, row, cell, ascii_only=ascii_only) for row, cell in zip(rows, cells, strict=True)),
        is_figure=column.measured or column.key == c.TRAINABLE.key,
    )


def _header(column: Column) -> str:
    return "\n".join(one_line(line, limit=_TEXT_LIMIT) for line in (column.short or column.header).split("\n"))


def _cell(column: Column, row: Row, cell: Cell, *, ascii_only: bool) -> Text:
    if column.key == c.STATE.key:
        return _state(row, ascii_only=ascii_only)
    if column.key == c.NAME.key:
        repeats = f" \N{MULTIPLICATION SIGN}{len(row.members)}" if len(row.members) > 1 else ""
        return _text(cut_middle(one_line(row.name), _NAME_LIMIT) + repeats, "bold", ascii_only=ascii_only)
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


def _failure_lines(group: Sequence[Failure], *, ascii_only: bool) -> list[Text]:
    """Return what happened to one job, or to several for the same cause, and what to type next."""
    first, suite = group[0], group[0].experiment.partition("/")[0]
    names = [f"{failure.experiment} {failure.job}" for failure in group]
    what = f" {one_line(name_first(names, _NAMED))}"
    message = f": {one_line(first.message, limit=160)}" if first.message else ""
    head = Text.assemble(
        (first.state.value, STATE_STYLES[first.state]),
        _text(what, "bold", ascii_only=ascii_only),
        _text(message, "", ascii_only=ascii_only),
    )
    # Only `why` has one command for all of them.
    together = (Step(command("why", suite, "--state", first.state.value)),)
    steps = [
        _text(f"  next: {one_line(str(step))}", "dim", ascii_only=ascii_only)
        for step in (first.steps if len(group) == 1 else together)
    ]
    for step in steps:
        step.no_wrap, step.overflow = True, "ignore"  # a command that is copied from two lines is two commands
    return [head, *steps]


def _text(text: str, style: str, *, ascii_only: bool) -> Text:
    return Text(ascii_text(text) if ascii_only else text, style=style)

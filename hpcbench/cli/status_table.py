"""The status as a terminal or a pipe shows it: counts, then a line per experiment or job, what moves first.

In: jobs, and how much room there is. Out: lines, each of one row whatever it says. On a terminal marks stand for the
states and what does not fit is cut; a pipe gets whole words, so that `grep running` finds whole lines.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from rich.cells import cell_len
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from hpcbench.errors import plural
from hpcbench.invocation import quoted
from hpcbench.report.escape import cut_middle, one_line
from hpcbench.schemas.collection import Collection, JobView
from hpcbench.schemas.headline import headline
from hpcbench.schemas.progress import parse_progress, progress_text
from hpcbench.schemas.request import EVAL_PREFIX
from hpcbench.schemas.states import FAILED_STATES, STATE_STYLES, JobState
from hpcbench.status.gather import describe_reason

IMPORTANCE = (
    JobState.RUNNING,
    *sorted(FAILED_STATES),
    JobState.OUT_OF_MEMORY,
    JobState.UNKNOWN,
    JobState.PENDING,
    JobState.PLANNED,
    JobState.BLOCKED,
    JobState.COMPLETED,
)
"""Order of the rows; where not all fit, the last are left out."""
RANK = {state: rank for rank, state in enumerate(IMPORTANCE)}
MARKS: Mapping[JobState, tuple[str, str]] = {
    **dict.fromkeys(FAILED_STATES, ("✘", "!")),
    JobState.COMPLETED: ("✔", "+"),
    JobState.RUNNING: ("●", ">"),
    JobState.PENDING: ("○", "."),
    JobState.OUT_OF_MEMORY: ("▲", "M"),
    JobState.BLOCKED: ("⊘", "x"),
    JobState.PLANNED: ("·", "-"),
    JobState.UNKNOWN: ("?", "?"),
}
"""The sign of each state, and the one where the terminal has ASCII alone."""
MOST_ROWS = 50
"""How many experiments a terminal shows when none were named."""
FRAME_LINES = 4
"""Lines of a screen besides the jobs: header, counts, the number left out, and the cursor's line."""
GAP = 2
LEAST_NAME, LEAST_DETAIL = 16, 18
"""Columns of a narrow terminal that names and details keep."""
JOB_NAME_LIMITS = (16, 6)
"""To how many columns names of evals are cut, the first for which there is room."""


class Terminal(Console):
    """A console that raises BrokenPipeError where rich would end the program."""

    def on_broken_pipe(self) -> None:
        """Raise again instead of ending the program here."""
        raise BrokenPipeError(errno.EPIPE, "the reader has closed its end")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the status is shown."""

    width: int | None = None
    """Columns of the terminal; None is a pipe, which takes lines of any length."""
    rows: int | None = None
    """How many rows are shown at most; None shows all."""
    ascii_only: bool = False
    by_job: bool = False
    """A row per job instead of one per experiment."""


class StatusScreen:
    """The status, drawn in place."""

    def __init__(self, live: Live, *, by_job: bool) -> None:
        self._live = live
        self._by_job = by_job

    def show(self, collection: Collection, jobs: Sequence[JobView], *, complete: bool) -> None:
        """Draw what fits on the screen; everything where `complete`, since that frame stays."""
        console = self._live.console
        warnings = [Text(f"warning: {warning}", style="yellow") for warning in collection.warnings]
        room = max(console.height - FRAME_LINES - len(warnings), 1)
        if complete:
            self._live.vertical_overflow = "visible"
        place = Place(
            width=console.width,
            rows=None if complete else room,
            ascii_only=console.options.ascii_only,
            by_job=self._by_job,
        )
        self._live.update(Group(*warnings, *status_lines(jobs, place)), refresh=True)


@dataclass(frozen=True, slots=True)
class _Column:
    """One column of the table, its cells as wide as they want to be."""

    header: str
    cells: tuple[Text, ...]

    @property
    def width(self) -> int:
        return max(cell_len(self.header), *(cell.cell_len for cell in self.cells))


@dataclass(frozen=True, slots=True)
class _Experiment:
    """The jobs of one experiment that are shown."""

    jobs: tuple[JobView, ...]

    @property
    def deciding(self) -> JobView:
        """The job whose state is the experiment's: the main job until it has completed, then the most urgent eval."""
        first = self.jobs[0]
        if not _is_eval(first) and first.state is not JobState.COMPLETED:
            return first
        return min(self.jobs, key=lambda job: RANK[job.state])


def status_lines(jobs: Sequence[JobView], place: Place) -> list[Text]:
    """Return the lines of the status: counts, a header, a line per row, and how many rows were left out (pure)."""
    rows: list[_Experiment] = [_Experiment((job,)) for job in jobs] if place.by_job else _group(jobs)
    rows.sort(key=lambda row: RANK[row.deciding.state])
    shown = rows if place.rows is None else rows[: place.rows]
    if not shown:
        return [Text("no jobs", style="bold")]
    columns, remarks = (_columns_of_jobs if place.by_job else _columns_of_experiments)(shown, place)
    lines = [*_count_lines(jobs, rows, place), *_draw(columns, place.width)]
    if left := rows[len(shown) :]:
        counts = Counter(row.deciding.state for row in left)
        told = ", ".join(f"{counts[state]} {state}" for state in IMPORTANCE if counts[state])
        lines.append(Text(f"and {len(left)} more: {told}; {quoted('status', '--jobs')} shows all", style="dim"))
    return [*lines, *(Text(remark, style="dim") for remark in remarks)]


def _group(jobs: Sequence[JobView]) -> list[_Experiment]:
    groups: dict[tuple[str, str], list[JobView]] = {}
    for job in jobs:
        groups.setdefault((job.suite, job.experiment), []).append(job)
    return [_Experiment(tuple(members)) for members in groups.values()]


def _is_eval(job: JobView) -> bool:
    return job.job.startswith(EVAL_PREFIX)


def _count_lines(jobs: Sequence[JobView], rows: Sequence[_Experiment], place: Place) -> list[Text]:
    """Return how many jobs are in which state; on a terminal the marks beside them explain those of the table."""
    counts = Counter(job.state for job in jobs)
    parts = [Text(f"{counts[state]} {state}", style=STATE_STYLES[state]) for state in JobState if counts[state]]
    if place.width is not None and not place.by_job:
        found = (state for state in JobState if counts[state])
        parts = [Text.assemble(_mark(state, place), " ", part) for state, part in zip(found, parts, strict=True)]
    experiments = "" if place.by_job else f"{plural(len(rows), 'experiment')}, "
    line = Text(f"{experiments}{plural(len(jobs), 'job')}: ", style="bold")
    lines = [line]
    for number, part in enumerate(parts):
        comma = Text("" if number == len(parts) - 1 else ", ")
        if place.width is not None and lines[-1].cell_len + part.cell_len + 1 > place.width:
            lines[-1].rstrip()
            lines.append(Text("  "))
        lines[-1].append_text(part).append_text(comma)
    return lines


def _mark(state: JobState, place: Place) -> Text:
    mark, plain = MARKS[state]
    return Text(plain if place.ascii_only else mark, style=STATE_STYLES[state])


def _name_columns(rows: Sequence[_Experiment]) -> list[_Column]:
    names = [_Column("experiment", tuple(Text(one_line(row.jobs[0].experiment)) for row in rows))]
    if len({row.jobs[0].suite for row in rows}) > 1:
        names.insert(0, _Column("suite", tuple(Text(one_line(row.jobs[0].suite)) for row in rows)))
    return names


def _columns_of_experiments(rows: Sequence[_Experiment], place: Place) -> tuple[list[_Column], list[str]]:
    names = _name_columns(rows)
    details = _Column("progress, result or reason", tuple(Text(_describe(row)) for row in rows))
    if place.width is None:
        return [*names, *_job_columns(rows, place, limit=None), details], []
    for limit in JOB_NAME_LIMITS:
        job_columns = _job_columns(rows, place, limit=limit)
        needed = len(names) * LEAST_NAME + GAP + _total(job_columns) + GAP + LEAST_DETAIL
        if needed <= place.width:
            return _cut_names(names, job_columns, details, place.width), []
    return _cut_names(names, _merged_columns(rows, place), details, place.width), []


def _columns_of_jobs(rows: Sequence[_Experiment], place: Place) -> tuple[list[_Column], list[str]]:
    jobs = [row.jobs[0] for row in rows]
    names = _name_columns(rows)
    states = _Column("state", tuple(Text(job.state.value, style=STATE_STYLES[job.state]) for job in jobs))
    known = [_Column("job", tuple(Text(one_line(job.job)) for job in jobs)), states]
    ids = _Column("id", tuple(Text(job.scheduler_id or "-", style="dim") for job in jobs))
    details = _Column("progress, result or reason", tuple(Text(_describe_job(job)) for job in jobs))
    if place.width is None:
        return [*names, *known, ids, details], []
    if len(names) * LEAST_NAME + _total([*known, ids]) + GAP + LEAST_DETAIL <= place.width:
        return _cut_names(names, [*known, ids], details, place.width), []
    known[0] = _Column("job", tuple(_cut(cell, LEAST_NAME) for cell in known[0].cells))
    return _cut_names(names, known, details, place.width), ["not shown here: id; see --json"]


def _cut_names(names: Sequence[_Column], middle: Sequence[_Column], details: _Column, width: int) -> list[_Column]:
    """Cut names where they would leave no room for the details."""
    room = width - _total(middle) - 2 * GAP - LEAST_DETAIL - GAP * (len(names) - 1)
    # Some names are short, so that the others may have their room.
    first = [_cut_column(column, max(room // len(names), LEAST_NAME)) for column in names[:-1]]
    last = _cut_column(names[-1], max(room - sum(column.width for column in first), LEAST_NAME))
    return [*first, last, *middle, details]


def _job_columns(rows: Sequence[_Experiment], place: Place, *, limit: int | None) -> list[_Column]:
    """Return a column per job name: main jobs, then evals in the order in which they come first."""
    by_row = [{_column_name(job): job for job in row.jobs} for row in rows]
    names = dict.fromkeys(name for found in by_row for name in found)
    ordered = sorted(names, key=lambda name: any(name in found and _is_eval(found[name]) for found in by_row))
    cell = partial(_state_cell, place=place)
    return [
        _Column(
            name if limit is None else _cut(Text(name), limit).plain, tuple(cell(found.get(name)) for found in by_row)
        )
        for name in ordered
    ]


def _column_name(job: JobView) -> str:
    return one_line(job.job_names[-1].removeprefix(EVAL_PREFIX))


def _state_cell(job: JobView | None, *, place: Place) -> Text:
    if job is None:
        return Text("" if place.width is not None else "-")
    return Text(job.state.value) if place.width is None else _mark(job.state, place)


def _merged_columns(rows: Sequence[_Experiment], place: Place) -> list[_Column]:
    """Return the main job's mark, and how many evals are in which state, where each eval has no room of its own."""
    main = tuple(_state_cell(None if _is_eval(row.jobs[0]) else row.jobs[0], place=place) for row in rows)
    evals = tuple(_merged(job.state for job in row.jobs if _is_eval(job)) for row in rows)
    cells = tuple(
        Text(" ").join(Text.assemble(_mark(state, place), str(count)) for state, count in found.items())
        for found in evals
    )
    return [_Column("main", main), _Column("evals", cells)]


def _merged(states: Iterable[JobState]) -> dict[JobState, int]:
    counts = Counter(states)
    return {state: counts[state] for state in IMPORTANCE if counts[state]}


def _describe(row: _Experiment) -> str:
    """Return the results of an experiment that has completed, else how far it is or why it is in its state."""
    job = row.deciding
    if job.state is JobState.COMPLETED:
        by_importance = sorted(row.jobs, key=_is_eval, reverse=True)  # scores before losses, where not all fit
        return one_line(", ".join(text for text in map(_result, by_importance) if text))
    name = f"{_column_name(job)} " if _is_eval(job) and len(row.jobs) > 1 else ""
    return f"{name}{_describe_job(job, with_state=True)}"


def _result(job: JobView) -> str:
    """Return an eval's score under its dataset's name, else the main figures of a job."""
    text = headline(job.record)
    if not _is_eval(job):
        return text
    return f"{_column_name(job)} {text.rpartition(' ')[2]}" if text else ""


def _describe_job(job: JobView, *, with_state: bool = False) -> str:
    if job.state is JobState.RUNNING:
        _, _, left = parse_progress(job.progress).figures
        text = ", ".join(part for part in (progress_text(job.progress, brief=True), left) if part)
        text = text or describe_reason(job)
        return one_line(text or (job.state.value if with_state else ""))
    reason = describe_reason(job) if job.state is not JobState.COMPLETED else headline(job.record)
    if not with_state:
        return one_line(reason)
    # What torch says about it is no more than the state does.
    detail = "" if job.state is JobState.OUT_OF_MEMORY else reason
    return one_line(f"{job.state.value}: {detail}" if detail else job.state.value)


def _cut(text: Text, limit: int) -> Text:
    return Text(cut_middle(text.plain, limit), style=text.style)


def _cut_column(column: _Column, limit: int) -> _Column:
    return _Column(column.header, tuple(_cut(cell, limit) for cell in column.cells))


def _total(columns: Sequence[_Column]) -> int:
    return sum(column.width + GAP for column in columns) - GAP


def _draw(columns: Sequence[_Column], width: int | None) -> list[Text]:
    """Return the header and the rows, the last column cut at the terminal's edge."""
    header = tuple(Text(column.header, style="bold") for column in columns)
    widths = [column.width + GAP for column in columns[:-1]]  # each looks at all rows
    lines = []
    for cells in (header, *zip(*(column.cells for column in columns), strict=True)):
        line = Text()
        for column_width, cell in zip(widths, cells, strict=False):
            line.append_text(cell).append(" " * (column_width - cell.cell_len))
        line.append_text(cells[-1])
        line.rstrip()
        if width is not None:
            line.truncate(width, overflow="ellipsis")
        lines.append(line)
    return lines

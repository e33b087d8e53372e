"""The status table as a terminal shows it; colours vanish where there is no terminal."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hpcbench.schemas.collection import Collection, JobView
from hpcbench.schemas.states import FAILED_STATES, STATE_STYLES, JobState
from hpcbench.status.gather import count_states, status_rows

IMPORTANCE = (JobState.RUNNING, *sorted(FAILED_STATES), JobState.OUT_OF_MEMORY, JobState.UNKNOWN, JobState.PENDING)
"""States whose jobs are kept where not all fit, the most important first; the others come after."""
FRAME_LINES = 4
"""Lines of a screen besides the jobs: header, counts, the number left out, and the cursor's line."""


class Terminal(Console):
    """A console that raises BrokenPipeError where rich would end the program."""

    def on_broken_pipe(self) -> None:
        """Raise again instead of ending the program here."""
        raise BrokenPipeError(errno.EPIPE, "the reader has closed its end")


class StatusScreen:
    """The status, drawn in place."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def show(self, collection: Collection, jobs: Sequence[JobView], *, complete: bool) -> None:
        """Draw what fits on the screen; everything where `complete`, since that frame stays."""
        warnings = [Text(f"warning: {warning}", style="yellow") for warning in collection.warnings]
        room = None if complete else max(self._live.console.height - FRAME_LINES - len(warnings), 1)
        if complete:
            self._live.vertical_overflow = "visible"
        self._live.update(Group(*warnings, render_status(jobs, room=room)), refresh=True)


def choose_shown(jobs: Sequence[JobView], room: int) -> list[JobView]:
    """Return at most so many jobs, the most important ones in their order (pure)."""
    ranks = {state: rank for rank, state in enumerate(IMPORTANCE)}
    by_rank = sorted(range(len(jobs)), key=lambda index: (ranks.get(jobs[index].state, len(ranks)), index))
    return [jobs[index] for index in sorted(by_rank[:room])]


def render_status(jobs: Sequence[JobView], *, room: int | None = None) -> Group:
    """Return the table of jobs with a line of counts below it; with `room`, that many jobs of one line each."""
    shown = jobs if room is None else choose_shown(jobs, room)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    several = len({job.suite for job in jobs}) > 1
    for name in (*(["suite"] if several else []), "experiment", "job", "state", "id"):
        table.add_column(name, no_wrap=True)
    table.add_column("progress or result", no_wrap=room is not None)
    table.add_column("reason", no_wrap=room is not None)
    for row in status_rows(shown):
        cells = [row.experiment, row.job]
        table.add_row(
            *([Text(row.suite)] if several else []),
            *(Text(cell) for cell in cells),
            Text(row.state, style=STATE_STYLES[JobState(row.state)]),
            Text(row.scheduler_id, style="dim"),
            Text(row.progress),
            Text(row.reason),
        )
    left_out = [Text(f"and {len(jobs) - len(shown)} more", style="dim")] if len(shown) < len(jobs) else []
    return Group(table, *left_out, Text(count_states(jobs) or "no jobs", style="bold"))

"""The status table as a terminal shows it.

In: job views. Out: a rich renderable. Pure; colours vanish where there is no terminal.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from hpcbench.collection import JobView
from hpcbench.states import JobState
from hpcbench.status import count_states, status_rows

STYLES = {
    JobState.COMPLETED: "green",
    JobState.RUNNING: "cyan",
    JobState.PENDING: "yellow",
    JobState.PLANNED: "dim",
    JobState.UNKNOWN: "magenta",
    JobState.BLOCKED: "dim red",
}
FAILED_STYLE = "bold red"


def render_status(jobs: Sequence[JobView]) -> Group:
    """Return the table of jobs with a line of counts below it."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    several = len({job.suite for job in jobs}) > 1
    for name in (*(["suite"] if several else []), "experiment", "job", "state", "id"):
        table.add_column(name, no_wrap=True)
    table.add_column("progress or result")
    table.add_column("reason")
    for row in status_rows(jobs):
        state = JobState(row.state)
        cells = [row.experiment, row.job]
        table.add_row(
            *([Text(row.suite)] if several else []),
            *(Text(cell) for cell in cells),
            Text(row.state, style=STYLES.get(state, FAILED_STYLE)),
            Text(row.scheduler_id, style="dim"),
            Text(row.progress),
            Text(row.reason),
        )
    return Group(table, Text(count_states(jobs) or "no jobs", style="bold"))

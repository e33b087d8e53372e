"""The failures of the page, grouped by cause as `why` groups them.

In: the jobs of a suite. Out: plain JSON values: a group per cause, with its jobs and the commands for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from hpcbench.report.cause_groups import CauseGroup, group_jobs
from hpcbench.report.escape import one_line, printable
from hpcbench.report.facts import cause_text
from hpcbench.schemas.collection import JobView
from hpcbench.schemas.states import FAILED_STATES, JobState
from hpcbench.storage.json_files import JsonObject

MOST_LINES = 5


def failures_payload(jobs: Sequence[JobView]) -> list[JsonObject]:
    """Return a group per cause, the most pressing first."""
    states = FAILED_STATES | {JobState.OUT_OF_MEMORY, JobState.BLOCKED}
    return [_group(group) for group in group_jobs([job for job in jobs if job.state in states], jobs)]


def _group(group: CauseGroup) -> JsonObject:
    first = group.first
    cause = None if first.record is None else first.record.cause
    log = None if cause is None or cause.log is None else str(first.folder / cause.log)
    return {
        "state": first.state.value,
        "cause": cause_text(first),
        "jobs": [[one_line(f"{job.suite}/{job.experiment}"), one_line(job.job)] for job in group.jobs],
        "blocks": len(group.blocked),
        "hint": one_line(group.hint) if group.hint else None,
        "steps": [[one_line(step.command), one_line(step.remark)] for step in group.steps],
        "log": None if log is None else one_line(log),
        "lines": [] if cause is None else [printable(line) for line in cause.lines[-MOST_LINES:]],
    }

"""The commands to type next, by a job's state and cause, the likeliest first: for `why` and the reports."""

from __future__ import annotations

from typing import NamedTuple

from hpcbench.invocation import command
from hpcbench.schemas.cluster_profile import LOCAL
from hpcbench.schemas.collection import JobView
from hpcbench.schemas.record import BAD_NODE, DISK_FULL, INPUTS_CHANGED
from hpcbench.schemas.request import TRAIN
from hpcbench.schemas.states import JobState

SMALLER = "a smaller batch_size or max_length, gradient_checkpointing or more GPUs"
WHAT_ADJUST_CHANGES = {
    JobState.HOST_OUT_OF_MEMORY: "asks for more memory",
    JobState.TIMEOUT: "asks for more time if the rest needs it",
}
REPEATS_UNCHANGED = frozenset({"diverged", "bad_metrics", "no_metrics"})
"""Causes that the unchanged job meets again on any node."""
NOT_THE_JOBS_FAULT = frozenset({DISK_FULL, BAD_NODE})
"""Causes that no change of the job removes."""


class Step(NamedTuple):
    """One command to type, and what to know or change before it."""

    command: str
    remark: str = ""

    def __str__(self) -> str:
        return f"{self.command}  ({self.remark})" if self.remark else self.command


def next_steps(job: JobView) -> list[Step]:
    """Return the commands to type next, the likeliest first."""
    place = f"{job.suite}/{job.experiment}"
    match job.state:
        case JobState.COMPLETED:
            return [Step(command("collect", job.suite))]
        case JobState.PLANNED:
            return [Step(_submit(job))]
        case JobState.RUNNING:
            return [Step(command("logs", f"{place}/{job.job}", "-f"))]
        case JobState.PENDING if job.hint:
            return [Step(job.command)] if job.command else _next_while_stuck(job, place)
        case JobState.PENDING | JobState.UNKNOWN:
            return [Step(command("status", place))]
        case JobState.BLOCKED:
            return [Step(command("why", "/".join((job.suite, *(job.parent or (job.experiment, TRAIN))))))]
        case JobState.OUT_OF_MEMORY:
            return [Step(_submit(job), f"with {SMALLER}, under a new name")]
        case _:
            return _next_after_failure(job, place)


def _next_while_stuck(job: JobView, place: str) -> list[Step]:
    again = _submit(job, "--only", job.experiment, "--retry", "cancelled")
    return [Step(command("cancel", f"{place}/{job.job}")), Step(again, "after changing it")]


def _next_after_failure(job: JobView, place: str) -> list[Step]:
    cause = None if job.record is None else job.record.cause
    changed = _submit(job, "--only", job.experiment, "--force")
    if job.state is JobState.FAILED and cause is not None and cause.type in REPEATS_UNCHANGED:
        return [Step(changed, "after changing its arguments")]
    again = Step(command("retry", place))
    if cause is not None and cause.type == INPUTS_CHANGED:
        return [
            Step(changed, "to run on what is there now"),
            again._replace(remark="after putting back what was there"),
        ]
    adjustable = job.state in {JobState.HOST_OUT_OF_MEMORY, JobState.TIMEOUT, JobState.NODE_FAILED, JobState.LOST}
    # A local job cannot ask for a larger machine.
    if job.cluster != LOCAL and (adjustable or (cause is not None and cause.type == BAD_NODE)):
        again = Step(command("retry", place, "--adjust"), WHAT_ADJUST_CHANGES.get(job.state, "on another node"))
    if job.state is not JobState.FAILED or cause is None or cause.type in NOT_THE_JOBS_FAULT:
        return [again]
    return [again, Step(changed, "after changing its arguments or data")]


def _submit(job: JobView, *options: str) -> str:
    """Return the submit of the job's suite file, with what it was submitted with last."""
    file = job.request.suite_file if job.request is not None and job.request.suite_file else "CONFIG"
    return command("submit", file, *options, *job.submit_options)

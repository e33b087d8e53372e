"""Why a job is in its state, and what to type next.

In: a job view and its last log lines. Out: text. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from hpcbench.collection import JobView
from hpcbench.states import JobState

MEANING = {
    JobState.PLANNED: "not submitted yet",
    JobState.PENDING: "waiting in the queue",
    JobState.RUNNING: "running now",
    JobState.COMPLETED: "done, with a valid record",
    JobState.FAILED: "ended without a result",
    JobState.OUT_OF_MEMORY: "the GPU's memory was not enough; this is a result and is not retried",
    JobState.HOST_OUT_OF_MEMORY: "the node's memory was not enough",
    JobState.TIMEOUT: "the time limit was reached and no attempts are left",
    JobState.PREEMPTED: "another job took its place",
    JobState.NODE_FAILED: "its node failed",
    JobState.CANCELLED: "cancelled",
    JobState.BLOCKED: "cannot run, because its train job did not complete",
    JobState.LOST: "left the queue without a record",
    JobState.UNKNOWN: "nothing is concluded, because the scheduler did not say",
}


def explain(job: JobView, log_lines: Sequence[str] = (), log: str | None = None, *, step: str | None = None) -> str:
    """Return state, cause, the log lines that show it and the next command, or the step given instead."""
    name = f"{job.suite}/{job.experiment}/{job.job}"
    lines = [f"{name}: {job.state} ({MEANING[job.state]})"]
    if job.scheduler_id is not None:
        lines.append(f"  scheduler id: {job.scheduler_id}")
    if job.reason:
        lines.append(f"  cause: {job.reason}")
    if job.record is not None and len(job.record.attempts) > 1:
        attempts = ", ".join(
            f"{a.number}: {a.state} after {a.duration_s:.0f} s on {a.host}" for a in job.record.attempts
        )
        lines.append(f"  attempts: {attempts}")
    cause = None if job.record is None else job.record.cause
    if cause is not None and cause.hint:
        lines.append(f"  hint: {cause.hint}")
    shown = log_lines or (() if cause is None else cause.lines)
    if shown and job.state is not JobState.COMPLETED:
        lines += [f"  log ({log or (cause.log if cause is not None else '')}):", *(f"    {line}" for line in shown)]
    if step := next_command(job) if step is None else step:
        lines.append(f"  next: {step}")
    return "\n".join(lines)


def next_command(job: JobView) -> str:
    """Return what to type next, or an empty text when there is nothing to do."""
    place = f"{job.suite}/{job.experiment}"
    match job.state:
        case JobState.COMPLETED:
            return "hpcbench collect"
        case JobState.PLANNED:
            return "hpcbench submit <suite>.yaml"
        case JobState.PENDING | JobState.RUNNING | JobState.UNKNOWN:
            return (
                f"hpcbench status {place}"
                if job.state is not JobState.RUNNING
                else f"hpcbench logs {place}/{job.job} -f"
            )
        case JobState.BLOCKED:
            return f"hpcbench why {place}/train"
        case JobState.OUT_OF_MEMORY:
            return "a smaller batch_size or max_length, or gradient_checkpointing, under a new name"
        case JobState.HOST_OUT_OF_MEMORY:
            return f"raise requirements.mem_gb, then hpcbench retry {place}"
        case JobState.TIMEOUT:
            return f"raise requirements.time, then hpcbench retry {place}"
        case _:
            return f"hpcbench retry {place}"

"""Explain why a job is in its state, and what to type next.

In: a job view and its last log lines. Out: text. Pure.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from hpcbench.schemas.states import COMES_BACK, EXIT_START_ME_AGAIN, LOCAL, JobState
from hpcbench.schemas.views import JobView
from hpcbench.status.log_patterns import BAD_NODE, DISK_FULL

MEANING = {
    JobState.PLANNED: "not submitted yet",
    JobState.PENDING: "waiting in the queue",
    JobState.RUNNING: "running now",
    JobState.COMPLETED: "done, with a valid record",
    JobState.FAILED: "ended without a result",
    JobState.OUT_OF_MEMORY: "the GPU's memory was not enough; this is a result and is not retried",
    JobState.HOST_OUT_OF_MEMORY: "the node's memory was not enough",
    JobState.TIMEOUT: "the time limit was reached",
    JobState.PREEMPTED: "another job took its place",
    JobState.NODE_FAILED: "its node failed",
    JobState.CANCELLED: "cancelled; it does not come back by itself",
    JobState.BLOCKED: "cannot run, because its train job did not complete",
    JobState.LOST: "left the queue without a record",
    JobState.UNKNOWN: "the scheduler did not answer, so nothing is concluded",
}

SMALLER = "a smaller batch_size or max_length, gradient_checkpointing or more GPUs"
WHAT_ADJUST_CHANGES = {
    JobState.HOST_OUT_OF_MEMORY: "asks for more memory",
    JobState.TIMEOUT: "asks for more time if the rest needs it",
}
REPEATS_UNCHANGED = frozenset({"diverged", "bad_metrics", "no_metrics"})
"""Causes that the unchanged job meets again on any node."""
NOT_THE_JOBS_FAULT = frozenset({DISK_FULL, BAD_NODE})
"""Causes that no change of the job removes."""


def explain(job: JobView, log_lines: Sequence[str] = (), log: str | None = None, *, step: str | None = None) -> str:
    """Return state, cause, the log lines that show it and the next command, or the step given instead."""
    name = f"{job.suite}/{job.experiment}/{job.job}"
    lines = [f"{name}: {job.state} ({MEANING[job.state]}{_why_not_again(job)})"]
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
    hint = job.hint or (cause.hint if cause is not None else None)
    if hint and job.state is not JobState.COMPLETED:
        lines.append(f"  hint: {hint}")
    shown = log_lines or (() if cause is None else cause.lines)
    if shown and job.state is not JobState.COMPLETED:
        lines += [f"  log ({log or (cause.log if cause is not None else '')}):", *(f"    {line}" for line in shown)]
    lines += [f"  next: {text}" for text in (next_steps(job) if step is None else (step,))]
    return "\n".join(lines)


def _why_not_again(job: JobView) -> str:
    """Return why a job that may come back did not, or an empty string where no record shows it."""
    record, request = job.record, job.request
    if job.state not in COMES_BACK or record is None or request is None or not record.attempts:
        return ""
    last = record.attempts[-1]
    asked = last.cause is not None and last.cause.exit_code == EXIT_START_ME_AGAIN
    if job.state is JobState.TIMEOUT and request.program and last.state is JobState.TIMEOUT and not asked:
        return f"; the program did not ask to be started again (exit code {EXIT_START_ME_AGAIN})"
    # Those of an earlier submission do not count.
    if last.restart_count + 1 >= request.max_attempts:
        return f"; no attempts are left (max_attempts: {request.max_attempts})"
    return "; it was not put back into the queue"


def next_steps(job: JobView) -> list[str]:
    """Return the commands to type next, the likeliest first."""
    place = shlex.quote(f"{job.suite}/{job.experiment}")
    match job.state:
        case JobState.COMPLETED:
            return ["hpcbench collect"]
        case JobState.PLANNED:
            return [f"hpcbench submit {_suite_file(job)}"]
        case JobState.RUNNING:
            return [f"hpcbench logs {place}/{job.job} -f"]
        case JobState.PENDING if job.hint:
            return [job.command] if job.command else _next_while_stuck(job, place)
        case JobState.PENDING | JobState.UNKNOWN:
            return [f"hpcbench status {place}"]
        case JobState.BLOCKED:
            return [f"hpcbench why {place}/train"]
        case JobState.OUT_OF_MEMORY:
            return [f"hpcbench submit {_suite_file(job)}  (with {SMALLER}, under a new name)"]
        case _:
            return _next_after_failure(job, place)


def _next_while_stuck(job: JobView, place: str) -> list[str]:
    """Return how to cancel a job that can never start, and how to submit it after a change."""
    again = f"hpcbench submit {_suite_file(job)} --only {shlex.quote(job.experiment)} --retry cancelled"
    return [f"hpcbench cancel {place}/{job.job}", f"{again}  (after changing it)"]


def _next_after_failure(job: JobView, place: str) -> list[str]:
    """Return how to run a failed job again: unchanged, or after a change."""
    cause = None if job.record is None else job.record.cause
    changed = f"hpcbench submit {_suite_file(job)} --only {shlex.quote(job.experiment)} --force"
    if job.state is JobState.FAILED and cause is not None and cause.type in REPEATS_UNCHANGED:
        return [f"{changed}  (after changing its arguments)"]
    again = f"hpcbench retry {place}"
    adjustable = job.state in {JobState.HOST_OUT_OF_MEMORY, JobState.TIMEOUT, JobState.NODE_FAILED, JobState.LOST}
    # A local job cannot ask for a larger machine.
    if job.cluster != LOCAL and (adjustable or (cause is not None and cause.type == BAD_NODE)):
        again += f" --adjust  ({WHAT_ADJUST_CHANGES.get(job.state, 'on another node')})"
    if job.state is not JobState.FAILED or cause is None or cause.type in NOT_THE_JOBS_FAULT:
        return [again]
    return [again, f"{changed}  (after changing its arguments or data)"]


def _suite_file(job: JobView) -> str:
    return shlex.quote(job.request.suite_file) if job.request is not None and job.request.suite_file else "CONFIG"

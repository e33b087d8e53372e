"""Explain why a job is in its state, as `why` prints it, with the next commands. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from hpcbench.report.next_steps import next_steps
from hpcbench.schemas.collection import JobView
from hpcbench.schemas.states import COMES_BACK, EXIT_START_ME_AGAIN, JobState

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
    JobState.BLOCKED: "cannot run, because the job whose model it takes did not complete",
    JobState.LOST: "left the queue without a record",
    JobState.UNKNOWN: "the scheduler did not answer, so nothing is concluded",
}


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

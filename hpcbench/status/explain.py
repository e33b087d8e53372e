"""Explain why jobs are in their states, as `why` prints it, and what to type next; by cause, or one by one. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from hpcbench.errors import name_first, plural
from hpcbench.report.cause_groups import CauseGroup, hint_of, why_not_again
from hpcbench.report.next_steps import next_steps
from hpcbench.schemas.collection import JobView
from hpcbench.schemas.states import JobState

NAMED = 3
"""How many jobs of one cause are named."""

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
    lines = [f"{_name(job)}: {job.state} ({_meaning(job)})"]
    if job.scheduler_id is not None:
        lines.append(f"  scheduler id: {job.scheduler_id}")
    if job.reason:
        lines.append(f"  cause: {job.reason}")
    if job.record is not None and len(job.record.attempts) > 1:
        attempts = ", ".join(
            f"{a.number}: {a.state} after {a.duration_s:.0f} s on {a.host}" for a in job.record.attempts
        )
        lines.append(f"  attempts: {attempts}")
    if hint := hint_of(job):
        lines.append(f"  hint: {hint}")
    lines += _log_lines(job, log_lines, log)
    lines += [f"  next: {text}" for text in (next_steps(job) if step is None else (step,))]
    return "\n".join(lines)


def _meaning(job: JobView) -> str:
    """Return what the state means, and why its job did not come back."""
    return f"{MEANING[job.state]}{why_not_again(job)}"


def explain_group(group: CauseGroup, log_lines: Sequence[str] = (), log: str | None = None) -> str:
    """Return what the jobs of a cause have in common, three names, what they block and the commands for all of them."""
    if len(group.jobs) == 1:
        lines = explain(group.first, log_lines, log).splitlines()
        if group.blocked:
            place = next((n for n, line in enumerate(lines) if line.startswith(("  next: ", "  log "))), len(lines))
            lines.insert(place, _blocks_line(group.blocked))
        return "\n".join(lines)
    names = name_first([_name(job) for job in group.jobs], NAMED)
    lines = [f"{group.first.state}, {plural(len(group.jobs), 'job')} ({_meaning(group.first)}): {names}"]
    if group.first.reason:
        alike = all(job.reason == group.first.reason for job in group.jobs)
        lines.append(f"  cause{'' if alike else ' of the first'}: {group.first.reason}")
    if group.hint:
        lines.append(f"  hint: {group.hint}")
    if group.blocked:
        lines.append(_blocks_line(group.blocked))
    lines += _log_lines(group.first, log_lines, log, title="log of the first")
    return "\n".join([*lines, *(f"  next: {step}" for step in group.steps)])


def _blocks_line(blocked: Sequence[JobView]) -> str:
    return f"  blocks: {plural(len(blocked), 'job')}: {name_first([_name(job) for job in blocked], NAMED)}"


def _name(job: JobView) -> str:
    return f"{job.suite}/{job.experiment}/{job.job}"


def _log_lines(job: JobView, log_lines: Sequence[str], log: str | None, *, title: str = "log") -> list[str]:
    cause = None if job.record is None else job.record.cause
    shown = log_lines or (() if cause is None else cause.lines)
    if not shown or job.state is JobState.COMPLETED:
        return []
    place = log or (cause.log if cause is not None else None)
    return [f"  {title} ({place}):" if place else f"  {title}:", *(f"    {line}" for line in shown)]

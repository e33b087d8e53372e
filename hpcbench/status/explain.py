"""Explain why jobs are in their states, as `why` prints it, and what to type next; by cause, or one by one. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hpcbench.errors import name_first, plural
from hpcbench.report.causes import cause_key
from hpcbench.report.next_steps import Step, kinds_of_steps, next_steps, next_steps_together
from hpcbench.schemas.collection import JobView
from hpcbench.schemas.states import COMES_BACK, EXIT_START_ME_AGAIN, FAILED_STATES, JobState

NAMED = 3
"""How many jobs of one cause are named."""
URGENCY = (*sorted(FAILED_STATES), JobState.UNKNOWN, JobState.PENDING, JobState.PLANNED, JobState.OUT_OF_MEMORY)
"""Order of the causes; those of other states come last."""

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
    lines = [f"{_name(job)}: {job.state} ({MEANING[job.state]}{_why_not_again(job)})"]
    if job.scheduler_id is not None:
        lines.append(f"  scheduler id: {job.scheduler_id}")
    if job.reason:
        lines.append(f"  cause: {job.reason}")
    if job.record is not None and len(job.record.attempts) > 1:
        attempts = ", ".join(
            f"{a.number}: {a.state} after {a.duration_s:.0f} s on {a.host}" for a in job.record.attempts
        )
        lines.append(f"  attempts: {attempts}")
    if hint := _hint(job):
        lines.append(f"  hint: {hint}")
    lines += _log_lines(job, log_lines, log)
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


@dataclass(slots=True)
class CauseGroup:
    """Jobs that are in the same state for the same cause, and have the same commands next."""

    jobs: list[JobView]
    blocked: list[JobView] = field(default_factory=list)
    """Jobs that cannot run because of them, directly or by another blocked one."""
    are_all: bool = False
    """Whether their suites have no other jobs in this state."""

    @property
    def first(self) -> JobView:
        """The job whose log is shown."""
        return self.jobs[0]

    @property
    def steps(self) -> list[Step]:
        """The commands to type next."""
        return next_steps_together(self.jobs, are_all=self.are_all)

    @property
    def meaning(self) -> str:
        """What the state means, and why its jobs did not come back."""
        return f"{MEANING[self.first.state]}{_why_not_again(self.first)}"

    @property
    def hint(self) -> str | None:
        """What fixes it."""
        return _hint(self.first)


def group_by_cause(jobs: Sequence[JobView], all_jobs: Sequence[JobView]) -> list[CauseGroup]:
    """Return the jobs by cause, the most pressing first; what one of them blocks is part of its group.

    Args:
        jobs: those to explain.
        all_jobs: those of the same suites, which tell what a command for a whole state would mean.
    """
    places = {(job.suite, *job.ref): job for job in jobs}
    groups: dict[tuple[object, ...], CauseGroup] = {}
    group_of: dict[tuple[str, str, str], CauseGroup] = {}
    blocked: list[tuple[JobView, JobView]] = []
    for job in jobs:
        root = _root(job, places)
        if root is not job:
            blocked.append((job, root))
            continue
        group = groups.setdefault(_cause_key(job), CauseGroup(jobs=[]))
        group.jobs.append(job)
        group_of[(job.suite, *job.ref)] = group
    for job, root in blocked:
        group_of[(root.suite, *root.ref)].blocked.append(job)
    in_state = Counter((job.suite, job.state) for job in all_jobs)
    for group in groups.values():
        own = Counter((job.suite, job.state) for job in group.jobs)
        group.are_all = all(count == in_state[place] for place, count in own.items())
    ranks = {state: rank for rank, state in enumerate(URGENCY)}
    return sorted(groups.values(), key=lambda group: (ranks.get(group.first.state, len(ranks)), -len(group.jobs)))


def _root(job: JobView, places: Mapping[tuple[str, str, str], JobView]) -> JobView:
    """Return the job that a blocked job waits for in the end, if that is among those to explain, else the job."""
    seen: set[tuple[str, str]] = set()
    while job.state is JobState.BLOCKED and job.parent is not None and job.parent not in seen:
        seen.add(job.parent)
        above = places.get((job.suite, *job.parent))
        if above is None:
            return job
        job = above
    return job


def _cause_key(job: JobView) -> tuple[object, ...]:
    cause = None if job.record is None else job.record.cause
    # A blocked job's reason names its parent, a pending one's Slurm's word.
    words = cause_key(job.state, "" if job.state is JobState.BLOCKED else job.reason)
    return words, None if cause is None else cause.type, _why_not_again(job), kinds_of_steps(job)


def explain_group(group: CauseGroup, log_lines: Sequence[str] = (), log: str | None = None) -> str:
    """Return what the jobs of a cause have in common, three names, what they block and the commands for all of them."""
    if len(group.jobs) == 1:
        lines = explain(group.first, log_lines, log).splitlines()
        if group.blocked:
            place = next((n for n, line in enumerate(lines) if line.startswith(("  next: ", "  log "))), len(lines))
            lines.insert(place, _blocks_line(group.blocked))
        return "\n".join(lines)
    names = name_first([_name(job) for job in group.jobs], NAMED)
    lines = [f"{group.first.state}, {plural(len(group.jobs), 'job')} ({group.meaning}): {names}"]
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


def _hint(job: JobView) -> str | None:
    cause = None if job.record is None else job.record.cause
    hint = job.hint or (cause.hint if cause is not None else None)
    return hint if job.state is not JobState.COMPLETED else None


def _log_lines(job: JobView, log_lines: Sequence[str], log: str | None, *, title: str = "log") -> list[str]:
    cause = None if job.record is None else job.record.cause
    shown = log_lines or (() if cause is None else cause.lines)
    if not shown or job.state is JobState.COMPLETED:
        return []
    place = log or (cause.log if cause is not None else None)
    return [f"  {title} ({place}):" if place else f"  {title}:", *(f"    {line}" for line in shown)]

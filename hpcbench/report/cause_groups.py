"""Jobs that are in the same state for the same cause, put together: for `why` and the page.

In: jobs. Out: groups, each with what its jobs block and the commands for all of them. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hpcbench.report.causes import cause_key
from hpcbench.report.next_steps import Step, kinds_of_steps, next_steps_together
from hpcbench.schemas.collection import JobView
from hpcbench.schemas.states import COMES_BACK, EXIT_START_ME_AGAIN, FAILED_STATES, JobState

URGENCY = (*sorted(FAILED_STATES), JobState.UNKNOWN, JobState.PENDING, JobState.PLANNED, JobState.OUT_OF_MEMORY)
"""Order of the causes; those of other states come last."""


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
    def hint(self) -> str | None:
        """What fixes it."""
        return hint_of(self.first)


def group_jobs(jobs: Sequence[JobView], all_jobs: Sequence[JobView]) -> list[CauseGroup]:
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
    return words, None if cause is None else cause.type, why_not_again(job), kinds_of_steps(job)


def why_not_again(job: JobView) -> str:
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


def hint_of(job: JobView) -> str | None:
    """Return what fixes a job that has not completed, where its record or the scheduler's word tells."""
    cause = None if job.record is None else job.record.cause
    hint = job.hint or (cause.hint if cause is not None else None)
    return hint if job.state is not JobState.COMPLETED else None

"""The commands to type next, by a job's state and cause, the likeliest first: for `why` and the reports.

Nobody else decides what helps. Jobs with the same cause may have their commands together, as one that names them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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


MOST_NAMES = 20
"""Names that a command holds at most; of more jobs it names one."""


class Step(NamedTuple):
    """One command to type, and what to know or change before it."""

    command: str
    remark: str = ""

    def __str__(self) -> str:
        return f"{self.command}  ({self.remark})" if self.remark else self.command


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draft:
    """A command whose names are not yet put into it, so that those of several jobs can be."""

    verb: str
    names: tuple[str, ...] = ()
    """Positional words: jobs, experiments, suites, or the suite's file."""
    only: tuple[str, ...] = ()
    """Experiments of the suite's file."""
    words: tuple[str, ...] = ()
    remark: str = ""

    @property
    def kind(self) -> tuple[object, ...]:
        """What two drafts have in common that become one command."""
        file = self.names if self.verb == "submit" else ()
        return self.verb, file, bool(self.only), self.words, self.remark

    def step(self) -> Step:
        """Return the command."""
        only = [word for name in self.only for word in ("--only", name)]
        return Step(command(self.verb, *self.names, *only, *self.words), self.remark)


def next_steps(job: JobView) -> list[Step]:
    """Return the commands to type next, the likeliest first."""
    if job.state is JobState.PENDING and job.hint and job.command:
        return [Step(job.command)]
    return [draft.step() for draft in _drafts(job)]


def next_steps_together(jobs: Sequence[JobView], *, are_all: bool) -> list[Step]:
    """Return the commands to type next for jobs with the same cause.

    Args:
        jobs: at least one.
        are_all: whether their suites have no other jobs in their state, so that `--state` means just these.
    """
    if len(jobs) == 1 or any(job.command for job in jobs):
        return list(dict.fromkeys(step for job in jobs for step in next_steps(job)))
    by_kind: dict[tuple[object, ...], list[_Draft]] = {}
    for draft in (draft for job in jobs for draft in _drafts(job)):
        by_kind.setdefault(draft.kind, []).append(draft)
    return [_merge(drafts, jobs, are_all=are_all).step() for drafts in by_kind.values()]


def kinds_of_steps(job: JobView) -> tuple[tuple[object, ...], ...]:
    """Return what is next for a job without the names: equal for jobs that one command helps."""
    return tuple((draft.verb, draft.words, draft.remark) for draft in _drafts(job))


def _merge(drafts: Sequence[_Draft], jobs: Sequence[JobView], *, are_all: bool) -> _Draft:
    first = drafts[0]
    names = tuple(dict.fromkeys(name for draft in drafts for name in draft.names))
    only = tuple(dict.fromkeys(name for draft in drafts for name in draft.only))
    suites = tuple(dict.fromkeys(job.suite for job in jobs))
    if first.verb in {"retry", "cancel", "status"} and are_all and len(names) > 1:
        return replace(first, names=suites, words=("--state", jobs[0].state.value, *first.words))
    if first.verb == "why" and len(names) > 1:
        return replace(first, names=suites)
    if max(len(names), len(only)) > MOST_NAMES or (first.verb == "logs" and len(names) > 1):
        rest = f"and the other {max(len(names), len(only)) - 1} alike"
        return replace(first, remark=f"{first.remark}; {rest}" if first.remark else rest)
    return replace(first, names=names, only=only)


def _drafts(job: JobView) -> list[_Draft]:
    place = f"{job.suite}/{job.experiment}"
    match job.state:
        case JobState.COMPLETED:
            return [_Draft(verb="collect", names=(job.suite,))]
        case JobState.PLANNED:
            return [_submit(job)]
        case JobState.RUNNING:
            return [_Draft(verb="logs", names=(f"{place}/{job.job}",), words=("-f",))]
        case JobState.PENDING if job.hint:
            again = _submit(job, "--retry", "cancelled", only=True)
            return [
                _Draft(verb="cancel", names=(f"{place}/{job.job}",)),
                replace(again, remark="after changing it"),
            ]
        case JobState.PENDING | JobState.UNKNOWN:
            return [_Draft(verb="status", names=(place,))]
        case JobState.BLOCKED:
            return [_Draft(verb="why", names=("/".join((job.suite, *(job.parent or (job.experiment, TRAIN)))),))]
        case JobState.OUT_OF_MEMORY:
            return [replace(_submit(job), remark=f"with {SMALLER}, under a new name")]
        case _:
            return _after_failure(job, place)


def _after_failure(job: JobView, place: str) -> list[_Draft]:
    cause = None if job.record is None else job.record.cause
    changed = replace(_submit(job, "--force", only=True), remark="after changing its arguments")
    if job.state is JobState.FAILED and cause is not None and cause.type in REPEATS_UNCHANGED:
        return [changed]
    again = _Draft(verb="retry", names=(place,))
    if cause is not None and cause.type == INPUTS_CHANGED:
        return [
            replace(changed, remark="to run on what is there now"),
            replace(again, remark="after putting back what was there"),
        ]
    adjustable = job.state in {JobState.HOST_OUT_OF_MEMORY, JobState.TIMEOUT, JobState.NODE_FAILED, JobState.LOST}
    # A local job cannot ask for a larger machine.
    if job.cluster != LOCAL and (adjustable or (cause is not None and cause.type == BAD_NODE)):
        again = replace(again, words=("--adjust",), remark=WHAT_ADJUST_CHANGES.get(job.state, "on another node"))
    if job.state is not JobState.FAILED or cause is None or cause.type in NOT_THE_JOBS_FAULT:
        return [again]
    return [again, replace(changed, remark="after changing its arguments or data")]


def _submit(job: JobView, *options: str, only: bool = False) -> _Draft:
    """Return the submit of the job's suite file, with what it was submitted with last."""
    file = job.request.suite_file if job.request is not None and job.request.suite_file else "CONFIG"
    return _Draft(
        verb="submit",
        names=(file,),
        only=(job.experiment,) if only else (),
        words=(*options, *job.submit_options),
    )

"""What hpcbench asks of a scheduler, whichever it is: implemented by `slurm/` and `local/`.

A scheduler that does not answer raises SchedulerError; "not there" only ever follows a query that worked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from hpcbench.schemas.request import Resources
from hpcbench.schemas.states import JobState
from hpcbench.schemas.submission import JobSettings, Submission

Place = tuple[str, int]  # submission key and array index: one job, whatever the scheduler calls it


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerJob:
    """What a scheduler says of one job."""

    state: JobState
    raw_state: str  # the scheduler's own word
    reason: str = ""  # why it is pending, in the scheduler's words
    expected_start: str | None = None
    exit_code: str | None = None
    held_by_dependency: bool = False  # waits for another job, or waits for one that cannot complete
    hint: str = ""  # what a person has to do before a pending job can start; empty where it only has to wait
    command: str = ""  # what to type for that, where a command alone does it


@dataclass(frozen=True, slots=True)
class Answer:
    """One look at the queue."""

    jobs: Mapping[Place, SchedulerJob] = field(default_factory=dict)
    history_known: bool = False  # accounting answered: only then does silence mean that a job is gone
    history_failed: bool = False  # accounting is there but did not answer: then silence means nothing
    # Submissions that went to another cluster, by key, and what that calls itself: nothing is known of their jobs.
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def cluster_elsewhere(submission: Submission, here: str | None) -> str | None:
    """Return the name of the other cluster that a submission went to, or None when it is this one or unknown."""
    theirs = submission.cluster_name
    return theirs if theirs is not None and here is not None and theirs != here else None


class Queue(Protocol):
    """What can be asked where jobs stand."""

    @property
    def queue_name(self) -> str:
        """What is really asked: queues of one name give one answer, whatever the profiles are called."""

    def query(self, submissions: Sequence[Submission]) -> Answer:
        """Query all elements of the submissions in one batched query.

        Raises:
            SchedulerError: the queue was not answered.
        """


class Scheduler(Queue, Protocol):
    """A place where jobs run."""

    @property
    def name(self) -> str:
        """Profile name, or `local`."""

    @property
    def cluster_name(self) -> str | None:
        """What the cluster calls itself; None where it does not say, and for `local`."""

    @property
    def runs_here(self) -> bool:
        """Whether jobs run on this machine, started by a runner of hpcbench's, rather than by a cluster."""

    @property
    def poll_s(self) -> float | None:
        """How many seconds lie between two queries while watching; None where a query reads files only."""

    def max_array_size(self) -> int:
        """Return one more than the largest array index; 1 where jobs go out one by one."""

    def room_left(self) -> int | None:
        """Return how many more jobs may be queued, or None without a limit.

        Raises:
            SchedulerError: the queue was not answered, so nothing may be submitted.
        """

    def job_settings(self, resources: Resources) -> JobSettings:
        """Return what the cluster's profile decides inside jobs with these resources (pure)."""

    def render(self, submission: Submission, after_id: str | None) -> str:
        """Return the exact text that would be submitted (pure)."""

    def describe_environment(self, texts: Sequence[str]) -> list[str]:
        """Return, for a person, what the user's environment adds to jobs that go out with these rendered texts."""

    def submit(self, submission: Submission, after_id: str | None) -> str:
        """Submit and return the scheduler's id.

        Raises:
            SubmitError: the scheduler refused it permanently.
            SchedulerError: it is not known whether the scheduler took it.
        """

    def find(self, keys: Sequence[str]) -> Mapping[str, str]:
        """Return the ids of those submissions, by key, that the scheduler has or had.

        Raises:
            SchedulerError: the question was not answered.
        """

    def release(self, element_ids: Iterable[str]) -> None:
        """Drop the dependency of jobs that take the model of one that has completed."""

    def cancel(self, element_ids: Sequence[str]) -> None:
        """Cancel jobs by their scheduler ids; ids that are gone are not an error."""

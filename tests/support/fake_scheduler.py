"""A scheduler in memory: it takes what it is told to take, and says what a test tells it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from hpcbench.errors import HpcbenchError, SchedulerError
from hpcbench.scheduler.protocol import Answer, SchedulerJob, cluster_elsewhere
from hpcbench.schemas.request import Resources
from hpcbench.schemas.states import JobState
from hpcbench.schemas.submission import JobSettings, Submission

PENDING = SchedulerJob(state=JobState.PENDING, raw_state="PENDING")
HELD = SchedulerJob(state=JobState.PENDING, raw_state="PENDING", reason="Dependency", held_by_dependency=True)


@dataclass(slots=True)
class FakeScheduler:
    """The one door that unit tests of submit need; every call is kept."""

    name: str = "slurm"
    cluster_name: str | None = None
    refusal: HpcbenchError | None = None
    """Raised by every submit."""
    says: Mapping[str, SchedulerJob] | None = field(default_factory=dict)
    """By job name, what a query answers; None does not answer."""
    otherwise: SchedulerJob | None = None
    """What it answers for jobs of other names."""
    taken: dict[str, str] = field(default_factory=dict)
    released: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    array_size: int = 1001
    runs_here: bool = False
    poll_s: float | None = None

    @property
    def queue_name(self) -> str:
        return self.name

    def max_array_size(self) -> int:
        return self.array_size

    def room_left(self) -> int | None:
        return None

    def describe_environment(self, texts: Sequence[str]) -> list[str]:
        return [f"{len(texts)} texts"]

    def job_settings(self, resources: Resources) -> JobSettings:
        del resources
        return JobSettings()

    def render(self, submission: Submission, after_id: str | None) -> str:
        return f"{submission.key} after {after_id}"

    def submit(self, submission: Submission, after_id: str | None) -> str:
        del after_id
        if self.refusal is not None:
            raise self.refusal
        self.taken[submission.key] = str(100 + len(self.taken))
        return self.taken[submission.key]

    def find(self, keys: Sequence[str]) -> Mapping[str, str]:
        return {key: self.taken[key] for key in keys if key in self.taken}

    def query(self, submissions: Sequence[Submission]) -> Answer:
        if self.says is None:
            raise SchedulerError("squeue: no answer within 90 s")
        jobs = {
            (submission.key, index): told
            for submission in submissions
            for index, element in submission.elements.items()
            if (told := self.says.get(element.job, self.otherwise)) is not None
        }
        elsewhere = {
            s.key: other for s in submissions if (other := cluster_elsewhere(s, self.cluster_name)) is not None
        }
        known = {place: job for place, job in jobs.items() if place[0] not in elsewhere}
        return Answer(jobs=known, history_known=True, elsewhere=elsewhere)

    def release(self, element_ids: Iterable[str]) -> None:
        self.released += element_ids

    def cancel(self, element_ids: Sequence[str]) -> None:
        self.cancelled += element_ids

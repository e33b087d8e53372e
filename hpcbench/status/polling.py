"""Poll suites, files often and schedulers rarely: for `status --watch`, `collect --watch` and `submit --wait`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from hpcbench.errors import SchedulerError
from hpcbench.scheduler.protocol import Answer, Queue
from hpcbench.scheduler.registry import scheduler_of
from hpcbench.schemas.collection import Collection
from hpcbench.schemas.submission import Submission
from hpcbench.status.gather import gather

FILES_EVERY_S = 5.0
"""How often progress and records are read."""
IDLE_PER_WORK = 9
"""Reading thousands of files on a busy file system takes at most a tenth of the time."""

Clock = Callable[[], float]


class PatientQueue:
    """A queue that is queried at most once in `every_s` seconds for the same jobs; else it repeats its last answer."""

    def __init__(self, queue: Queue, every_s: float, clock: Clock = time.monotonic) -> None:
        self._queue = queue
        self.every_s = every_s
        self._clock = clock
        self._asked_at = float("-inf")
        self._known: frozenset[str] = frozenset()
        self._answer: Answer | SchedulerError = Answer()

    @property
    def queue_name(self) -> str:
        """The queue's own."""
        return self._queue.queue_name

    def query(self, submissions: Sequence[Submission]) -> Answer:
        """Return the queue's answer about these submissions, or the part of the last one that covers them.

        Raises:
            SchedulerError: the queue did not answer its last query.
        """
        keys = frozenset(submission.key for submission in submissions)
        is_repeated = self._clock() - self._asked_at < self.every_s and keys <= self._known
        if not is_repeated:
            self._known = keys
            try:
                self._answer = self._queue.query(submissions)
            except SchedulerError as error:
                self._answer = error
            self._asked_at = self._clock()
        if isinstance(self._answer, SchedulerError):
            raise self._answer
        return _repeat(self._answer, keys) if is_repeated else self._answer


def _repeat(answer: Answer, keys: frozenset[str]) -> Answer:
    """Return an old answer about these submissions; what was held then may have been released since."""
    jobs = {
        place: replace(job, held_by_dependency=False) if job.held_by_dependency else job
        for place, job in answer.jobs.items()
        if place[0] in keys
    }
    return replace(answer, jobs=jobs)


def poll(
    save_dir: Path,
    names: Sequence[str] = (),
    *,
    every_s: float | None = None,
    clock: Clock = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Collection]:
    """Yield what is known now, again and again, with pauses; no names are all suites.

    `every_s` is how often a scheduler is queried; None takes the longest `poll_s` of its profiles.
    """
    queues: dict[str, Queue | None] = {}
    patient: dict[str, PatientQueue] = {}

    def find(cluster: str) -> Queue | None:
        if cluster not in queues:
            scheduler = scheduler_of(cluster, save_dir)
            queues[cluster] = scheduler
            if scheduler is not None and scheduler.poll_s is not None:  # the local queue is files, read every time
                wait_s = every_s or scheduler.poll_s
                shared = patient.setdefault(scheduler.queue_name, PatientQueue(scheduler, wait_s, clock))
                shared.every_s = max(shared.every_s, wait_s)
                queues[cluster] = shared
        return queues[cluster]

    while True:
        started = clock()
        yield gather(save_dir, names, find=find)
        files_s = min([FILES_EVERY_S, *(queue.every_s for queue in patient.values())])
        sleep(max(files_s, IDLE_PER_WORK * (clock() - started)))

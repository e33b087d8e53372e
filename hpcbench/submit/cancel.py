"""Cancelling jobs: a note on disk first; an array element cancelled before it starts leaves no row in Slurm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hpcbench.errors import SchedulerError
from hpcbench.scheduler.registry import scheduler_of
from hpcbench.schemas.collection import JobView
from hpcbench.schemas.notes import Cancelled
from hpcbench.schemas.record import may_come_back, read_record
from hpcbench.schemas.states import ALIVE
from hpcbench.storage.paths import JobPaths


def cancel_jobs(jobs: Sequence[JobView], save_dir: Path) -> list[JobView]:
    """Cancel those jobs that are pending or running.

    Of several that share a scheduler job, this one goes on with the others and leaves out those with a note.

    Raises:
        SchedulerError: the scheduler cannot be asked from this machine, or did not answer, or some are another user's.
    """
    alive = [job for job in jobs if job.state in ALIVE and job.scheduler_id is not None]
    if not alive:
        return []
    # Their ids may be those of other jobs here.
    far = [job for job in alive if job.elsewhere is not None]
    if far:
        others = ", ".join(sorted({job.elsewhere for job in far if job.elsewhere is not None}))
        raise SchedulerError(f"{len(far)} of these jobs are on another cluster ({others})", hint="cancel them there")
    foreign = [job.submitter for job in alive if job.submitter is not None]
    if foreign:
        words = f"{len(foreign)} of these jobs were submitted by {', '.join(sorted(set(foreign)))}"
        raise SchedulerError(words, hint="who submitted them has to cancel them")
    by_cluster: dict[str, list[JobView]] = {}
    for job in alive:
        by_cluster.setdefault(job.cluster or "", []).append(job)
    for cluster, members in by_cluster.items():
        scheduler = scheduler_of(cluster, save_dir)
        if scheduler is None:
            raise SchedulerError(f"{cluster}: its scheduler cannot be reached from this machine")
        for job in members:
            # Not flushed: that would take seconds for thousands of jobs, and only a crash of this machine loses a note.
            Cancelled(scheduler_id=job.scheduler_id).write(JobPaths(job.folder).cancelled, sync=False)
        # After all notes: those of one scheduler job see each other's.
        going_on = {job.scheduler_id for job in members if _has_open_companion(job)}
        ids = (job.scheduler_id for job in members if job.scheduler_id not in going_on)
        scheduler.cancel(list(dict.fromkeys(element_id for element_id in ids if element_id is not None)))
    return alive


def _has_open_companion(job: JobView) -> bool:
    """Return whether its scheduler job has another one left to run that is not cancelled."""
    for experiment, name in job.companions:
        other = JobPaths(job.folder.parent.parent / experiment / name)
        note, record = Cancelled.read(other.cancelled), read_record(other.record)
        is_cancelled = note is not None and note.scheduler_id == job.scheduler_id
        if not is_cancelled and (record is None or may_come_back(record)):
            return True
    return False


def cancel_where_possible(
    jobs: Sequence[JobView], save_dir: Path
) -> tuple[list[JobView], list[tuple[list[JobView], SchedulerError]]]:
    """Cancel one's own jobs that are pending or running wherever that can be asked; return the others with why."""
    by_place: dict[tuple[str | None, str | None, str | None], list[JobView]] = {}
    for job in jobs:
        by_place.setdefault((job.cluster, job.elsewhere, job.submitter), []).append(job)
    cancelled: list[JobView] = []
    left: list[tuple[list[JobView], SchedulerError]] = []
    for members in by_place.values():
        try:
            cancelled += cancel_jobs(members, save_dir)
        except SchedulerError as error:
            left.append(([job for job in members if job.state in ALIVE], error))
    return cancelled, left

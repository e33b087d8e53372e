"""Collect all suites below a save directory, release jobs that are held without need, and make the status table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcbench.scheduler.registry import scheduler_of
from hpcbench.schemas.collection import Collection, JobView
from hpcbench.schemas.headline import headline
from hpcbench.schemas.progress import progress_text
from hpcbench.schemas.states import JobState
from hpcbench.schemas.suite_folder import read_suites
from hpcbench.status.collect import FindQueue, collect_suites
from hpcbench.status.held_jobs import release_held_jobs
from hpcbench.storage.package_data import user_cache_dir


def gather(
    save_dir: Path, names: Sequence[str] = (), *, release_held: bool = True, find: FindQueue | None = None
) -> Collection:
    """Collect the named suites, or all, querying each cluster once; `find` replaces the clusters' own queues."""
    suites = read_suites(save_dir, names)
    find = find or (lambda cluster: scheduler_of(cluster, save_dir))
    collection = collect_suites(suites, find, cache_folder=user_cache_dir(os.environ))
    held = {
        job.cluster
        for suite in collection.suites
        for job in suite.jobs.values()
        if job.held and job.cluster is not None
    }
    for cluster in sorted(held):
        scheduler = scheduler_of(cluster, save_dir)
        if scheduler is not None and release_held:
            release_held_jobs(suites, collection, scheduler)
    return collection


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusRow:
    """One line of the status table."""

    suite: str
    experiment: str
    job: str
    state: str
    scheduler_id: str
    progress: str
    reason: str
    expected_start: str | None = None
    """The scheduler's local time."""
    in_suite: bool = True


def status_rows(jobs: Sequence[JobView]) -> list[StatusRow]:
    """Return the table's rows (pure)."""
    return [
        StatusRow(
            suite=job.suite,
            experiment=job.experiment,
            job=job.job,
            state=job.state.value,
            scheduler_id=job.scheduler_id or "-",
            progress=progress_text(job.progress) if job.state is JobState.RUNNING else headline(job.record),
            reason=describe_reason(job),
            expected_start=job.expected_start,
            in_suite=job.in_suite,
        )
        for job in jobs
    ]


def describe_reason(job: JobView) -> str:
    """Return the reason of a job's state, with its expected start where the scheduler gives one."""
    start = f"expected start {job.expected_start}" if job.expected_start else ""
    return "; ".join(part for part in (job.reason, start) if part)


def count_states(jobs: Sequence[JobView]) -> str:
    """Return `3 completed, 1 failed` in a fixed order."""
    counts = {state: sum(job.state is state for job in jobs) for state in JobState}
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count)

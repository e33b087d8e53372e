"""Where a job's words are: its attempts' logs, or Slurm's own log when it never got that far.

In: a job view. Out: paths, newest last. It only looks.
"""

from __future__ import annotations

from pathlib import Path

from hpcbench.collection import JobView
from hpcbench.paths import JobPaths, SuitePaths


def log_files(job: JobView) -> list[Path]:
    """Return the logs of a job, oldest first: Slurm's own, then each attempt's."""
    paths = JobPaths(job.folder)
    suite = SuitePaths(job.folder.parents[2], job.suite)
    found: list[Path] = []
    if job.scheduler_id is not None:
        found.append(suite.slurm_logs / f"{job.scheduler_id}.out")
    attempts = [entry for entry in job.folder.glob("attempt-*") if entry.name.removeprefix("attempt-").isdigit()]
    numbers = sorted(int(entry.name.removeprefix("attempt-")) for entry in attempts)
    found += [paths.attempt(number).log for number in numbers]
    return [path for path in found if path.is_file()]


def newest_log(job: JobView, attempt: int | None = None) -> Path | None:
    """Return the log to show: the asked attempt's, else the last attempt's, else Slurm's own."""
    if attempt is not None:
        path = JobPaths(job.folder).attempt(attempt).log
        return path if path.is_file() else None
    files = log_files(job)
    return files[-1] if files else None

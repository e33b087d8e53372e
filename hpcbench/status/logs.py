"""Find a job's logs: those of its attempts, or Slurm's own log if no attempt started. It never changes a file."""

from __future__ import annotations

import re
from pathlib import Path

from hpcbench.schemas.collection import JobView
from hpcbench.schemas.states import FAILED_STATES
from hpcbench.storage.paths import JobPaths, SuitePaths

LOG_TAIL_BYTES = 16_384
LOG_LINES = 12


def log_files(job: JobView, attempt: int | None = None) -> list[Path]:
    """Return the logs of a job, oldest first: Slurm's own, then each attempt's; or only that of one attempt."""
    paths = JobPaths(job.folder)
    if attempt is not None:
        found = [paths.attempt(attempt).log]
    else:
        suite = SuitePaths(job.folder.parents[2], job.suite)
        own = [] if job.scheduler_id is None else [suite.scheduler_log(job.scheduler_id)]
        found = own + [attempt.log for attempt in paths.attempts()]
    return [path for path in found if path.is_file()]


def newest_log(job: JobView, attempt: int | None = None) -> Path | None:
    """Return the log to show: the asked attempt's, else the last attempt's, else Slurm's own."""
    files = log_files(job, attempt)
    return files[-1] if files else None


def telling_log(job: JobView) -> Path | None:
    """Return the log that shows the reason of a job's state; without a record that is Slurm's own."""
    if job.record is None and job.state in FAILED_STATES:
        return next((path for path in log_files(job) if path.stat().st_size > 0), None)
    return newest_log(job)


def log_tail(path: Path, lines: int = LOG_LINES) -> tuple[str, ...]:
    """Return the last non-empty lines of a log as text without control characters."""
    try:
        with path.open("rb") as stream:
            stream.seek(0, 2)
            stream.seek(max(0, stream.tell() - LOG_TAIL_BYTES))
            text = stream.read().decode("utf-8", errors="replace")
    except OSError:
        return ()
    # A progress bar rewrites its line with carriage returns; only its last state is worth keeping.
    cleaned = [
        re.sub(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0b-\x1f]", "", line.rsplit("\r", 1)[-1]) for line in text.split("\n")
    ]
    return tuple(line[:500] for line in cleaned if line.strip())[-lines:]

"""The artifacts of jobs on disk, for reports.

In: a job with its folder. Out: its history, samples and log, read when they are asked for. It never changes a file.
"""

from __future__ import annotations

from collections.abc import Iterable

from hpcbench.schemas.collection import JobView
from hpcbench.schemas.history import History, read_history
from hpcbench.schemas.samples import Sample, read_samples
from hpcbench.status.logs import log_tail, telling_log
from hpcbench.storage.paths import JobPaths


class ArtifactsOnDisk:
    """Reads `history.jsonl`, `samples.jsonl` and logs of the jobs' attempts."""

    def history(self, job: JobView) -> History:
        """Return the course of a training over its attempts."""
        return read_history(JobPaths(job.folder))

    def samples(self, job: JobView) -> Iterable[Sample]:
        """Return the documents of an eval, in the order of its file."""
        return read_samples(JobPaths(job.folder))

    def log_tail(self, job: JobView) -> tuple[str, ...]:
        """Return the last lines of the log that shows why a job is in its state."""
        log = telling_log(job)
        return () if log is None else log_tail(log)

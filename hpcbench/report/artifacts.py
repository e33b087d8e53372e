"""What jobs leave beside their records, as reports ask for it: histories, samples, logs.

In: a job. Out: values. A report reads no disk; who renders one gives it the `Artifacts` that do, as
`hpcbench.status.artifacts`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from hpcbench.schemas.collection import JobView
from hpcbench.schemas.history import History
from hpcbench.schemas.samples import Sample


class Artifacts(Protocol):
    """Where the artifacts of jobs come from; what is not there is empty."""

    def history(self, job: JobView) -> History:
        """Return the course of a training."""
        ...

    def samples(self, job: JobView) -> Iterable[Sample]:
        """Return the documents of an eval with their answers."""
        ...

    def log_tail(self, job: JobView) -> tuple[str, ...]:
        """Return the last lines of the log that tells most about a job."""
        ...


class NoArtifacts:
    """Of collections that are no longer, or never were, on disk."""

    def history(self, job: JobView) -> History:  # noqa: ARG002 -- as all artifacts
        """Return an empty history."""
        return History()

    def samples(self, job: JobView) -> Iterable[Sample]:  # noqa: ARG002
        """Return no samples."""
        return ()

    def log_tail(self, job: JobView) -> tuple[str, ...]:  # noqa: ARG002
        """Return no lines."""
        return ()

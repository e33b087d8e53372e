"""What a report may use besides the collection: histories, samples and logs of jobs, and where it will lie.

In: a job. Out: values. A report reads no disk; who renders one gives it the `Artifacts` that do, as
`hpcbench.status.artifacts`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
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


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureLink:
    """A picture that lies beside a report."""

    suite: str
    title: str
    path: str
    """Of the PNG as seen from the report, with `/`; the SVG has the same name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportContext:
    """What a report may use besides the collection."""

    artifacts: Artifacts = field(default_factory=NoArtifacts)
    folder: Path | None = None
    """Where the report will lie, from which its links start; without it there are paths and no links."""
    pictures: tuple[PictureLink, ...] = ()

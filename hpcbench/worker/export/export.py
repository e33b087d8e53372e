"""Merged and quantised model folders (`cmd: export`)."""

from __future__ import annotations

from hpcbench.errors import WorkerError
from hpcbench.schemas.request import JobRequest
from hpcbench.storage.paths import AttemptPaths, JobPaths


def run(request: JobRequest, job: JobPaths, attempt: AttemptPaths) -> None:
    """Raise until it is there; plan refuses the command until then.

    Raises:
        WorkerError: always.
    """
    raise WorkerError(f"{job.request}: cmd {request.cmd} is not in this version", hint=f"remove {attempt.folder}")

"""Checkpoints on scratch: the folders that grow large become links, and nothing else notices.

In: a train job's folder and the profile's scratch, from the environment. Out: `resume` and `checkpoints` as links to
folders of this very configuration there. What is already in the job's folder stays where it is.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from hpcbench.errors import WorkerError
from hpcbench.schemas.request import JobRequest
from hpcbench.storage.paths import JobPaths


def scratch_folder(scratch: Path, job: JobPaths, request: JobRequest) -> Path:
    """Return the folder of this job and configuration on scratch; save directories do not mix (pure)."""
    place = hashlib.sha256(str(job.folder).encode()).hexdigest()[:8]
    return scratch / request.suite / request.experiment / f"{request.job}-{place}-{request.fingerprint[:12]}"


def link_scratch(job: JobPaths, request: JobRequest, scratch: str | None) -> None:
    """Make the job's large folders links to scratch, when there is one.

    Raises:
        WorkerError: scratch cannot be used.
    """
    for link in (job.resume, job.checkpoints):
        if link.is_symlink() and not link.exists():
            link.unlink()
    if not scratch or request.cmd != "sft":
        return
    root = Path(os.path.expandvars(scratch)).expanduser()
    for link in (job.resume, job.checkpoints):
        if link.exists():
            continue
        target = scratch_folder(root, job, request) / link.name
        try:
            target.mkdir(parents=True, exist_ok=True)
            link.symlink_to(target, target_is_directory=True)
        except OSError as error:
            raise WorkerError(f"scratch {target}: {error.strerror}", hint="check `scratch` in the profile") from error

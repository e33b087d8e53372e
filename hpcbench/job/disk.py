"""The disks that a job writes to: a little space kept for its record, and checkpoints on scratch.

Links lead to folders of this very configuration on scratch; what is already in the job's folder stays where it is.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
from pathlib import Path

from hpcbench.errors import WorkerError
from hpcbench.schemas.request import JobRequest
from hpcbench.storage.paths import JobPaths

logger = logging.getLogger(__name__)

RESERVE_BYTES = 256 * 1024  # two copies of a record of the longest suites seen, each with a temporary file
PROBE_BYTES = 64 * 1024
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def take_reserve(path: Path) -> None:
    """Write the file; the job runs on without it where the disk has no room."""
    try:
        _write_random(path, RESERVE_BYTES)
    except OSError as error:
        # The error's text is left out: log_patterns would take it for the cause of a later failure.
        logger.warning("no space can be kept for the record (errno %s)", error.errno)
        path.unlink(missing_ok=True)


def _write_random(path: Path, size: int) -> None:
    with path.open("wb") as stream:
        stream.write(os.urandom(size))  # zeros would take no space on disks that compress
        stream.flush()
        os.fsync(stream.fileno())  # NFS may report a full disk only here (write(2))


def release_reserve(path: Path) -> None:
    """Give the space back."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        logger.warning("%s stays: %s", path, error)


def is_full(folder: Path) -> bool:
    """Return whether nothing more can be written into a folder; tried, since statvfs(3) leaves quotas out."""
    probe = folder / f".probe.{os.getpid()}"
    try:
        _write_random(probe, PROBE_BYTES)
    except OSError as error:
        return error.errno in FULL
    finally:
        probe.unlink(missing_ok=True)
    return False


def expand_scratch(scratch: str) -> Path:
    """Return the profile's folder with `$USER` and the like filled in."""
    return Path(os.path.expandvars(scratch)).expanduser()


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
    if not scratch or not request.trains:
        return
    root = expand_scratch(scratch)
    for link in (job.resume, job.checkpoints):
        if link.exists():
            continue
        target = scratch_folder(root, job, request) / link.name
        try:
            target.mkdir(parents=True, exist_ok=True)
            link.symlink_to(target, target_is_directory=True)
        except OSError as error:
            raise WorkerError(f"scratch {target}: {error.strerror}", hint="check `scratch` in the profile") from error

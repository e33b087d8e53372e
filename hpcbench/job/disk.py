"""A little disk space that a job keeps for its record, so that a full disk does not lose the result.

In: an attempt's folder. Out: a file of random bytes (zeros would take no space on disks that compress), which goes just
before the record is written. Where even that does not fit, the job runs on and says so.
"""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

logger = logging.getLogger(__name__)

RESERVE_BYTES = 256 * 1024
"""Two copies of a record of the longest suites seen, each with a temporary file."""
PROBE_BYTES = 64 * 1024
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def take_reserve(path: Path) -> None:
    """Write the file; a disk without room for it is no reason not to run."""
    try:
        with path.open("wb") as stream:
            stream.write(os.urandom(RESERVE_BYTES))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        # Not its words: those are for what really fails, if anything does.
        logger.warning("no space can be kept for the record (errno %s)", error.errno)
        path.unlink(missing_ok=True)


def release_reserve(path: Path) -> None:
    """Give the space back."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        logger.warning("%s stays: %s", path, error)


def is_full(folder: Path) -> bool:
    """Say whether nothing more can be written into a folder: statvfs knows nothing of quotas, so it is tried."""
    probe = folder / f".probe.{os.getpid()}"
    try:
        with probe.open("wb") as stream:
            stream.write(os.urandom(PROBE_BYTES))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        return error.errno in FULL
    finally:
        probe.unlink(missing_ok=True)
    return False

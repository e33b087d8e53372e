"""How old a file is, by the clock of whoever keeps it: the clocks of two hosts may be minutes apart.

In: a path. Out: seconds. It makes a file beside the one that is looked at, and takes it away again.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path


def file_age_s(path: Path) -> float | None:
    """Return the seconds since a file was written or touched; None when it is gone or nothing can be made beside it."""
    probe = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.now")
    try:
        # Opened, because a network file system may remember the times of a file that is only named.
        with path.open("rb") as stream:
            written_at = os.fstat(stream.fileno()).st_mtime
        with probe.open("xb") as stream:
            now = os.fstat(stream.fileno()).st_mtime
    except OSError:
        return None
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
    return now - written_at

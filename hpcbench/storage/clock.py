"""Moments as text, and the age of files: the one way in which hpcbench writes and reads a time.

In: a moment, a text that any version of hpcbench wrote, or a path. Out: UTC ISO 8601 with microseconds, an aware
datetime, seconds. To ask for a file's age it makes a file beside it, and takes that away again.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path

LONG_AGO = datetime.min.replace(tzinfo=UTC)
"""Sorts what names no moment before all that does."""


def now_text() -> str:
    """Return the time as text."""
    return moment_text(datetime.now(UTC))


def moment_text(moment: datetime) -> str:
    """Return a moment as text."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_moment(text: object) -> datetime | None:
    """Return the moment that a text of any version means, or None where it means none; without a zone it is UTC.

    Texts are never compared as texts: `...:05Z` sorts after `...:05.5Z`, and `...+00:00` before both.
    """
    try:
        moment = datetime.fromisoformat(text) if isinstance(text, str) else None
        if moment is not None:
            # datetime ends at the years 1 and 9999: OverflowError.
            return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return None


def file_age_s(path: Path) -> float | None:
    """Return the seconds since a file was written or touched; None when it is gone or nothing can be made beside it.

    The clock is the file server's, for a file made now gets its time from there: the clocks of two hosts may be minutes
    apart.
    """
    probe = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.now")
    try:
        # Opened, since NFS caches attributes of files that are only named; open(2) asks the server (close-to-open).
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

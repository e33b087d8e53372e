"""The one way in which hpcbench writes a moment: UTC, ISO 8601, sortable as text."""

from __future__ import annotations

from datetime import UTC, datetime


def now_text() -> str:
    """Return the time as UTC ISO 8601 with microseconds, which sorts as text."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

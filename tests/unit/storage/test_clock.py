"""Moments that any version of hpcbench wrote are compared as moments."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from hpcbench.storage.clock import moment_text, parse_moment

NOON = datetime(2026, 11, 20, 12, 0, 0, 500_000, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-20T12:00:00.500000Z",
        "2026-11-20T12:00:00.500Z",
        "2026-11-20T12:00:00.500000+00:00",
        "2026-11-20T14:00:00.5+02:00",
        "2026-11-20T12:00:00.500",
    ],
)
def test_every_format_that_was_ever_written_is_read(text: str) -> None:
    assert parse_moment(text) == NOON


@pytest.mark.parametrize("text", ["", "yesterday", None, 7, "0001-01-01T00:00:00+14:00"])
def test_a_text_that_names_no_moment_is_none(text: object) -> None:
    assert parse_moment(text) is None


def test_a_moment_is_written_in_utc_with_microseconds() -> None:
    assert moment_text(NOON.astimezone(timezone(timedelta(hours=2)))) == "2026-11-20T12:00:00.500000Z"


def test_a_whole_second_is_before_its_fractions_although_it_sorts_after_them_as_text() -> None:
    early, late = "2026-11-20T12:00:00Z", "2026-11-20T12:00:00.5Z"
    first, second = parse_moment(early), parse_moment(late)
    assert first is not None
    assert second is not None
    assert first < second
    assert early > late

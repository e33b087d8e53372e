"""Which fields a row of a training dataset must have: the one table, for the login node and the worker.

In: the names of a row's fields. Out: the accepted set that they hold. No data is read here.
"""

from __future__ import annotations

from collections.abc import Iterable

FIELD_SETS: tuple[tuple[str, ...], ...] = (
    ("messages",),
    ("conversations",),
    ("query", "response"),
    ("instruction", "output"),
    ("question", "answer"),
)
"""Accepted sets, the first that fits is taken. All others (system, history, input, ...) are optional."""


def match_fields(names: Iterable[str]) -> tuple[str, ...] | None:
    """Return the accepted set that `names` hold, or None."""
    given = set(names)
    return next((fields for fields in FIELD_SETS if given.issuperset(fields)), None)


def describe_field_sets() -> str:
    """Return the accepted sets in one line, as error messages show them."""
    return " | ".join(" + ".join(fields) for fields in FIELD_SETS)

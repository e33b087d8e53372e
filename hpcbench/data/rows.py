"""A row of a dataset and the place that it was read from.

In: values. Out: values; everything that reads, checks or reports rows shares these types. Nothing here reads files.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

Row = dict[str, Any]


class Place(NamedTuple):
    """Where a row begins, as messages show it: `/data/train.jsonl: line 12`."""

    dataset: str
    """Path of the file, or name of the hub dataset."""
    unit: Literal["line", "row", "byte"]
    """Lines of text files, blank ones included; rows of all others. A row in the middle of a large text file, met
    without reading what is before it, is named by its first byte (`tail -c +NUMBER FILE | head -1` prints it)."""
    number: int
    """Counted from 1."""

    def __str__(self) -> str:
        return f"{self.dataset}: {self.unit} {self.number}"


class PlacedRow(NamedTuple):
    """One row with its place."""

    row: Row
    place: Place

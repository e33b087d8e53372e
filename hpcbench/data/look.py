"""What can be seen of a data file before a job reads it: its first row.

Data files are read for a megabyte at most, without a dataset library; what cannot be judged that way (parquet, arrow,
huge rows) is left to the worker.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path

from hpcbench.data.columns import SHAPES, Part, RowLayout, describe_shapes
from hpcbench.storage.located_yaml import shorten

PROBE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a data file, and what was expected."""

    message: str
    expected: str | None = None


def probe_dataset(path: Path, layout: RowLayout | None = None) -> Fault | None:
    """Return what is wrong with the first row of `path`, or None where nothing is, or nothing can be said."""
    readers = {".json": _first_json, ".jsonl": _first_jsonl, ".csv": _first_csv}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        return None
    try:
        with path.open("rb") as stream:
            head = stream.read(PROBE_BYTES + 1)
        # A character cut in two at the end of the first megabyte is not the file's fault.
        text = head.decode("utf-8-sig", errors="strict" if len(head) <= PROBE_BYTES else "ignore")
    except UnicodeDecodeError:
        return Fault(f"{path.name} is not UTF-8 text")
    except OSError as error:
        return Fault(f"{path.name} cannot be read: {error.strerror}")
    if not text.strip():
        return Fault(f"{path.name} is empty")
    found = reader(text, whole=len(head) <= PROBE_BYTES)
    if found is None:
        return None
    if isinstance(found, Fault):
        return Fault(f"{path.name}: {found.message}", found.expected)
    if not _holds_a_shape(found, layout):
        names = ", ".join(sorted(found)) or "nothing"
        return Fault(f"the first row of {path.name} has the fields {shorten(names, 200)}", describe_shapes())
    return None


def _holds_a_shape(names: set[str], layout: RowLayout | None) -> bool:
    if layout is not None and layout.columns:
        needed = {layout.columns[part] for part in (Part.TURNS, Part.ANSWER, Part.TEXT) if part in layout.columns}
        return needed <= names
    return any(shape.needed.keys() <= names for shape in SHAPES)


def _first_jsonl(text: str, *, whole: bool) -> set[str] | Fault | None:
    lines = [line for line in text.split("\n") if line.strip()]
    if len(lines) == 1 and not whole:
        return None
    try:
        return _fields(json.loads(lines[0]))
    except (ValueError, RecursionError):
        return Fault("its first line is not JSON", "one JSON object per line")


def _first_json(text: str, *, whole: bool) -> set[str] | Fault | None:
    """Return the fields of the first row of a JSON list, or of JSON lines that are called .json."""
    start = len(text) - len(text.lstrip())
    if text[start] == "[":
        start += 1
        start += len(text[start:]) - len(text[start:].lstrip())
        if text[start : start + 1] == "]":
            return Fault("it holds no rows")
    try:
        row, _ = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        return Fault("it is not JSON", "a list of objects, or one object per line") if whole else None
    return _fields(row)


def _first_csv(text: str, *, whole: bool) -> set[str] | Fault | None:
    try:
        rows = csv.reader(io.StringIO(text, newline=""))
        header = next(rows, [])
        first = next(rows, None)
    except csv.Error as error:
        return Fault(f"it is not CSV ({error})") if whole else None
    if first is None and whole:
        return Fault("it holds no rows below its header")
    return {name.strip() for name in header}


def _fields(row: object) -> set[str] | Fault:
    if not isinstance(row, dict):
        return Fault("its first row is not a JSON object", describe_shapes())
    return {str(name) for name in row}

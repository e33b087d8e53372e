"""The figures that a user's program leaves in the file that HPCBENCH_METRICS names.

In: a JSON object of any shape. Out: its figures by flat names (`rouge.f1`, `losses.0`), and the reason for each that
could not be kept as it is. One bad figure never costs the others; it never judges what a figure means.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpcbench.errors import RecordError, plural
from hpcbench.schemas.variables import METRICS

MAX_BYTES = 16_000_000
MAX_FIGURES = 1_000
MAX_DEPTH = 20
MAX_NAME = 200
MAX_TEXT = 1_000
OTHERS = "(others)"
"""Name of the reason for all figures beyond the first MAX_FIGURES."""
FORM = f'write one JSON object to the file that {METRICS} names, for example {{"accuracy": 0.5}}'

Figure = float | str | bool | None


class _Object(list[tuple[str, Any]]):
    """A JSON object as its pairs, so that a name given twice is seen."""


@dataclass(slots=True, kw_only=True)
class Figures:
    """What a program reported, in its order."""

    values: dict[str, Figure] = field(default_factory=dict)
    """None where `unknown` has the reason."""
    unknown: dict[str, str] = field(default_factory=dict)

    def put(self, name: str, value: object) -> None:
        """Keep a figure, or the reason why it is not kept as it is."""
        if name in self.values:
            self.unknown[name] = "reported more than once; the first is kept"
            return
        self.values[name], reason = _keep(value)
        if reason is not None:
            self.unknown[name] = reason


def read_figures(path: Path) -> Figures | None:
    """Return the figures in a file, or None where there is no file.

    Raises:
        RecordError: the file holds no JSON object.
    """
    try:
        size = path.stat().st_size
        text = "" if size > MAX_BYTES else path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{METRICS} cannot be read: {error}", hint=FORM) from error
    if size > MAX_BYTES:
        raise RecordError(f"{METRICS} holds {size / 1e6:.0f} MB, and at most {MAX_BYTES / 1e6:.0f} are read", hint=FORM)
    try:
        value = json.loads(text, object_pairs_hook=_Object)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{METRICS} holds no JSON: {error}" if text else f"{METRICS} is empty", hint=FORM) from error
    if not isinstance(value, _Object):
        raise RecordError(f"{METRICS} holds {_describe(value)}, not a JSON object", hint=FORM)
    found = Figures()
    num_left_out = 0
    for name, figure in _flatten(value, "", depth=1):
        if len(found.values) < MAX_FIGURES or name in found.values:
            found.put(name, figure)
        else:
            num_left_out += 1
    if num_left_out:
        found.unknown[OTHERS] = f"{plural(num_left_out, 'more figure')} not kept: at most {MAX_FIGURES:,} are"
    return found


def _flatten(value: object, name: str, *, depth: int) -> Iterator[tuple[str, object]]:
    """Yield each figure below a value with its flat name, in the order of the file."""
    if isinstance(value, _Object):
        parts: list[tuple[str, Any]] = value
    elif isinstance(value, list):
        parts = [(str(index), item) for index, item in enumerate(value)]
    else:
        yield name, value
        return
    if name and (not parts or depth > MAX_DEPTH):
        yield name, value
        return
    for key, item in parts:
        whole = f"{name}.{key}" if name else key
        yield from _flatten(item, _clean(whole, MAX_NAME), depth=depth + 1)


def _keep(value: object) -> tuple[Figure, str | None]:
    """Return what a record can hold of a figure, and the reason where that is not all of it."""
    if isinstance(value, list):
        return None, f"nested deeper than {MAX_DEPTH} levels" if value else f"reported as {_describe(value)}"
    if value is None:
        return None, "reported as null"
    if isinstance(value, str):
        reason = f"text of {len(value):,} characters, cut to {MAX_TEXT:,}" if len(value) > MAX_TEXT else None
        return _clean(value, MAX_TEXT), reason
    if isinstance(value, bool):
        return value, None
    assert isinstance(value, int | float)  # noqa: S101  # JSON has no other kinds
    try:
        number = float(value)
    except OverflowError:
        return None, "reported as a number that is too large"
    return (number, None) if math.isfinite(number) else (None, f"reported as {_name_of(number)}")


def _name_of(number: float) -> str:
    if math.isnan(number):
        return "NaN"
    return "Infinity" if number > 0 else "-Infinity"


def _describe(value: object) -> str:
    if isinstance(value, _Object):
        return "an empty object"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return "text" if isinstance(value, str) else f"the number {value}"


def _clean(text: str, limit: int) -> str:
    """Cut a long text; half of a surrogate pair, which no file can hold, becomes a question mark."""
    return text[:limit].encode("utf-8", "replace").decode("utf-8")

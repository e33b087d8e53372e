"""What a model's files say against a request: one finding, with the argument to blame."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What a model cannot do, and the argument to blame."""

    argument: str
    message: str
    expected: str | None = None
    hint: str | None = None

"""What became of one run in a tracker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hpcbench.tracking.runs import Run

Action = Literal["created", "added", "replaced", "unchanged"]
"""`added`: points or results to a run that was there; `replaced`: it held other points, as after a step done again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One run after it was sent."""

    run: Run
    action: Action

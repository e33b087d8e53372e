"""The course of a training: what its attempts left in `history.jsonl`, put together.

In: a job's folder. Out: one entry per optimizer step and one per evaluation. A line that cannot be read is left out.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hpcbench.storage.paths import JobPaths

STEP = "step"
EVAL_PREFIX = "eval_"
"""What names of figures of an evaluation begin with; others are of the training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Figures by step, ascending."""

    train: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    """Of optimizer steps: `loss`, `learning_rate`, `grad_norm`, `step_time_s`, `num_tokens`, `num_samples`, `epoch`."""
    evals: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    """Of evaluations on the validation split: `eval_loss` and what goes with it."""

    def series(self, name: str) -> list[tuple[int, float]]:
        """Return the steps that have a figure of this name, each with its value."""
        found = self.evals if name.startswith(EVAL_PREFIX) else self.train
        return [(step, figures[name]) for step, figures in found.items() if name in figures]


def read_history(job: JobPaths) -> History:
    """Return the course of a training over all its attempts; a step that was done again counts as it was done last.

    An attempt goes on from a checkpoint, so steps after it that an earlier attempt had reached are of no result.
    """
    train: dict[int, Mapping[str, float]] = {}
    evals: dict[int, Mapping[str, float]] = {}
    for attempt in job.attempts():
        steps: dict[int, dict[str, float]] = {}
        evaluations: dict[int, dict[str, float]] = {}
        for step, figures in _entries(attempt.history):
            is_eval = any(name.startswith(EVAL_PREFIX) for name in figures)
            (evaluations if is_eval else steps).setdefault(step, {}).update(figures)
        # An attempt may begin with the evaluation of the step that it goes on from, which it does not do again.
        done = min((*(step - 1 for step in steps), *evaluations), default=None)
        if done is not None:
            train = {step: figures for step, figures in train.items() if step <= done}
            evals = {step: figures for step, figures in evals.items() if step <= done}
        train.update(steps)
        evals.update(evaluations)
    return History(train=dict(sorted(train.items())), evals=dict(sorted(evals.items())))


def _entries(file: Path) -> Iterator[tuple[int, Mapping[str, float]]]:
    try:
        lines = file.read_bytes().splitlines()
    except OSError:
        return
    for line in lines:
        try:
            value = json.loads(line)
        except ValueError:  # the last line of a worker that was killed, or of one that writes now
            continue
        if not isinstance(value, dict) or type(step := value.get(STEP)) is not int:
            continue
        yield step, {name: float(number) for name, number in value.items() if name != STEP and _is_finite(number)}


def _is_finite(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) <= sys.float_info.max  # of an int too large for a float, math.isfinite raises

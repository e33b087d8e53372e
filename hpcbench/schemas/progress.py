"""How far a running job is, as its progress file tells, in words.

In: the JSON object of a progress file, whatever it holds. Out: a `Progress` of what it tells, and one line of text. It
reads no file and knows no job.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

MINUTE_S, HOUR_S = 60, 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a progress file tells; None is what it does not."""

    phase: str | None = None
    done: float | None = None
    """Optimizer steps of a training, documents or requests of an eval."""
    total: float | None = None
    """How many there are; None without `done`, or where it is less."""
    counts_steps: bool = False
    loss: float | None = None
    samples_per_second: float | None = None
    left_s: float | None = None

    @property
    def figures(self) -> tuple[str, str, str]:
        """Loss, speed and time left in words, empty where they are not known."""
        return (
            "" if self.loss is None else f"loss {self.loss:.4g}",
            "" if self.samples_per_second is None else f"{self.samples_per_second:.3g} samples/s",
            "" if self.left_s is None else f"{duration_text(self.left_s)} left",
        )


def parse_progress(values: Mapping[str, object]) -> Progress:
    """Return what a progress file tells; what is not a finite number is not told."""
    done, total = _first_number(values, "step", "done"), _first_number(values, "max_steps", "total")
    phase = values.get("phase")
    return Progress(
        phase=phase if isinstance(phase, str) and phase else None,
        done=done,
        total=None if done is None or not total or total < done else total,
        counts_steps="step" in values,
        loss=_first_number(values, "loss"),
        samples_per_second=_first_number(values, "samples_per_second"),
        left_s=_first_number(values, "eta_s"),
    )


def progress_text(values: Mapping[str, object], *, brief: bool = False) -> str:
    """Return `step 340/1250 (27%), loss 1.21, 1.9 samples/s, 8 min 12 s left`, an eval's `30/200 (15%)`, or the phase.

    Args:
        values: of the progress file.
        brief: how far it is, and no more.
    """
    progress = parse_progress(values)
    if progress.done is None:
        how_far = progress.phase or ""
    else:
        unit = "step " if progress.counts_steps else ""
        share = "" if progress.total is None else f"/{progress.total:.0f} ({progress.done / progress.total:.0%})"
        how_far = f"{unit}{progress.done:.0f}{share}"
    return how_far if brief else ", ".join(part for part in (how_far, *progress.figures) if part)


def duration_text(seconds: float) -> str:
    """Return a duration for people: `18.5 s`, `3 min 05 s`, `2 h 07 min`."""
    if seconds < MINUTE_S:
        return f"{seconds:.1f} s"
    if seconds < HOUR_S:
        return f"{int(seconds) // MINUTE_S} min {int(seconds) % MINUTE_S:02d} s"
    return f"{int(seconds) // HOUR_S} h {int(seconds) % HOUR_S // MINUTE_S:02d} min"


def _first_number(values: Mapping[str, object], *names: str) -> float | None:
    for name in names:
        value = values.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max:
            return float(value)
    return None

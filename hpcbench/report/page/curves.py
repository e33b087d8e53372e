"""The curves of the page: losses over steps, thinned and written small.

In: the rows of a suite, the best ranked first, and where histories come from. Out: plain JSON values,
whose numbers are differences to the one before, since those pack best. Of many experiments only the best ranked have
curves, and the page says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from hpcbench.report.artifacts import Artifacts
from hpcbench.report.curves import Point, bucket_size, thin
from hpcbench.report.facts import Facts
from hpcbench.report.rows import Row
from hpcbench.schemas.request import TRAININGS
from hpcbench.storage.json_files import JsonObject

MOST_CURVES = 400
"""Experiments of one suite that have curves on the page."""
SERIES = ("loss", "eval_loss")
_DIGITS = 3
"""Digits of a curve's middle value that the page keeps after the first."""


def curves_of(rows: Sequence[Row], artifacts: Artifacts, most: int = MOST_CURVES) -> list[tuple[Facts, JsonObject]]:
    """Return the curves of the first rows, whole rows alone, at most of `most` experiments."""
    found: list[tuple[Facts, JsonObject]] = []
    for row in rows:
        trained = [facts for facts in row.members if facts.view.main is not None and facts.view.cmd in TRAININGS]
        if len(found) + len(trained) > most:
            break
        for facts in trained:
            assert facts.view.main is not None  # noqa: S101 -- chosen so above
            history = artifacts.history(facts.view.main)
            series = {name: encode(points) for name in SERIES if (points := history.series(name))}
            if series:
                found.append((facts, {**series}))
    return found


def encode(points: Sequence[Point]) -> JsonObject:
    """Return a series as `{s, v, q, n}`: differences of steps, of values in units of `q`, neighbors in a point."""
    thinned = thin(points)
    unit = _unit([value for _, value in thinned])
    return {
        "s": _differences([step for step, _ in thinned]),
        "v": _differences([round(value / unit) for _, value in thinned]),
        "q": unit,
        "n": bucket_size(len(points)),
    }


def _unit(values: Sequence[float]) -> float:
    """Return the power of ten that leaves the middle value four digits."""
    middle = median(abs(value) for value in values)
    exponent = math.floor(math.log10(middle)) - _DIGITS if middle > 0 else -_DIGITS
    return float(f"1e{max(exponent, -300)}")


def _differences(numbers: Sequence[int]) -> list[int]:
    return [number - before for before, number in zip((0, *numbers), numbers, strict=False)]

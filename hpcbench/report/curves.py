"""Curves of trainings, thinned for pictures.

In: the points of one series, ascending steps. Out: fewer points, each with what it covers. It reads no file.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple

Point = tuple[int, float]
"""Step and value."""

MOST_POINTS = 120
"""Of one curve in a report."""


class MeanPoint(NamedTuple):
    """One point of the mean curve of repeats."""

    step: int
    mean: float
    std: float
    """Sample standard deviation, 0 for a single curve."""


def mean_curve(curves: Sequence[Sequence[Point]], most: int = MOST_POINTS) -> list[MeanPoint]:
    """Return the mean of curves at the steps that all of them have, thinned."""
    thinned = [dict(thin(points, most)) for points in _at_common_steps(curves)]
    steps = sorted(thinned[0]) if thinned else []
    values = [(step, [curve[step] for curve in thinned]) for step in steps]
    return [MeanPoint(step, fmean(found), stdev(found) if len(found) > 1 else 0.0) for step, found in values]


def _at_common_steps(curves: Sequence[Sequence[Point]]) -> list[list[Point]]:
    common = set.intersection(*({step for step, _ in points} for points in curves)) if curves else set()
    return [[(step, value) for step, value in points if step in common] for points in curves]


def thin(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """Return at most `most` points: each is the mean of as many neighbors, at the step of the last of them.

    The first point is kept as it is, since curves begin with their steepest part; so is the last step.
    """
    if len(points) <= most:
        return list(points)
    rest = points[1:]
    ends = [round(len(rest) * number / (most - 1)) for number in range(most)]
    buckets = (rest[start:end] for start, end in itertools.pairwise(ends))
    return [points[0], *((bucket[-1][0], fmean(value for _, value in bucket)) for bucket in buckets)]


def bucket_size(num_points: int, most: int = MOST_POINTS) -> int:
    """Return over how many neighbors the points of a thinned curve are means, at most."""
    return 1 if num_points <= most else -(-(num_points - 1) // (most - 1))

"""Curves of trainings, thinned for pictures.

In: the points of one series, ascending steps. Out: fewer points, each with what it covers. It reads no file.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from statistics import fmean

Point = tuple[int, float]
"""Step and value."""

MOST_POINTS = 120
"""Of one curve in a report."""


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

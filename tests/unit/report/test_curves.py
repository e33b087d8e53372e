"""Curves are thinned without losing where they begin and end."""

from __future__ import annotations

import itertools

import pytest

from hpcbench.report.curves import bucket_size, thin


@pytest.mark.parametrize("number", [0, 1, 2, 119, 120])
def test_short_curves_stay_as_they_are(number: int) -> None:
    points = [(step, 1.0 / (step + 1)) for step in range(number)]
    assert thin(points) == points
    assert bucket_size(number) == 1


def test_points_are_means_of_neighbors_at_the_last_ones_step() -> None:
    points = [(1, 8.0), (2, 4.0), (3, 2.0), (4, 1.0), (5, 3.0)]
    assert thin(points, 3) == [(1, 8.0), (3, 3.0), (5, 2.0)]
    assert bucket_size(5, 3) == 2


@pytest.mark.parametrize("number", [121, 122, 239, 1000, 5003])
def test_long_curves_keep_first_point_last_step_and_mean(number: int) -> None:
    points = [(10 * step, float(step % 7)) for step in range(number)]
    thinned = thin(points)
    assert len(thinned) == 120
    assert thinned[0] == points[0]
    assert thinned[-1][0] == points[-1][0]
    steps = [step for step, _ in thinned]
    assert steps == sorted(set(steps))
    assert max(after - before for before, after in itertools.pairwise(steps)) <= 10 * bucket_size(number)
    assert min(value for _, value in points) <= min(value for _, value in thinned)

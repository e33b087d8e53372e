"""Names in a scatter never cover each other or a point, and a front holds what nothing beats."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcbench.report.label_places import Box, place_labels
from hpcbench.report.pareto import pareto_front

AREA = Box(0, 0, 400, 300)
POINTS = st.lists(st.tuples(st.floats(0, 400), st.floats(0, 300)), max_size=30)


@given(POINTS, st.integers(10, 160))
def test_labels_cover_neither_each_other_nor_points(points: list[tuple[float, float]], width: int) -> None:
    places = [place for place in place_labels(points, [(width, 12)] * len(points), AREA, radius=5) if place is not None]
    assert all(AREA.contains(place) for place in places)
    assert not any(first.overlaps(second) for first, second in combinations(places, 2))
    squares = [Box(x - 5, y - 5, x + 5, y + 5) for x, y in points]
    assert not any(place.overlaps(square) for place in places for square in squares)


def test_label_stands_beside_its_point_and_where_there_is_no_room_nowhere() -> None:
    assert place_labels([(50, 50)], [(40, 10)], AREA, radius=5) == [Box(57, 45, 97, 55)]
    assert place_labels([(390, 50)], [(40, 10)], AREA, radius=5) == [Box(343, 45, 383, 55)]
    assert place_labels([(200, 150)], [(500, 10)], AREA, radius=5) == [None]


def test_points_after_the_last_size_have_no_label_but_stay_free() -> None:
    assert place_labels([(50, 50), (80, 50)], [(40, 10)], AREA, radius=5) == [Box(3, 45, 43, 55)]


def test_front_holds_what_no_point_equals_or_beats_in_both() -> None:
    points = [(1.0, 1.0), (2.0, 3.0), (3.0, 2.0), (4.0, 4.0), (4.0, 3.5)]
    assert pareto_front(points, "lower", "higher") == [0, 1, 3]
    assert pareto_front(points, "lower", "lower") == [0]
    assert pareto_front(points, "higher", "higher") == [3]
    assert pareto_front(points, None, "higher") == []


def test_equal_points_are_on_the_front_together() -> None:
    assert pareto_front([(1.0, 2.0), (1.0, 2.0), (1.0, 1.0)], "lower", "higher") == [0, 1]


@pytest.mark.parametrize("across", ["lower", "higher"])
@pytest.mark.parametrize("up", ["lower", "higher"])
@given(points=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=20))
def test_no_point_beats_one_of_the_front(across: str, up: str, points: list[tuple[int, int]]) -> None:
    def beats(one: tuple[int, int], other: tuple[int, int]) -> bool:
        x, y = (1 if across == "lower" else -1), (1 if up == "lower" else -1)
        return one != other and x * one[0] <= x * other[0] and y * one[1] <= y * other[1]

    front = pareto_front(points, across, up)  # type: ignore[arg-type]  # both are ends of a column
    expected = [n for n, point in enumerate(points) if not any(beats(other, point) for other in points)]
    assert sorted(front) == expected

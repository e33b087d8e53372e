"""Where the names of points go in a scatter, so that none covers another.

In: points and sizes of names in pixels, in order of importance. Out: a place for each name, or None where there is no
room. `templates/report/tradeoffs.js` does the same in the page.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

_GAPS = (2.0, 8.0)


class Box(NamedTuple):
    """A rectangle: left, bottom, right, top, y upwards or downwards."""

    left: float
    bottom: float
    right: float
    top: float

    def overlaps(self, other: Box) -> bool:
        """Return whether the two have an area in common."""
        return (
            self.left < other.right and other.left < self.right and self.bottom < other.top and other.bottom < self.top
        )

    def contains(self, other: Box) -> bool:
        """Return whether the other lies in this one."""
        return (
            self.left <= other.left
            and self.bottom <= other.bottom
            and other.right <= self.right
            and other.top <= self.top
        )


def place_labels(
    points: Sequence[tuple[float, float]], sizes: Sequence[tuple[float, float]], area: Box, *, radius: float
) -> list[Box | None]:
    """Return a place beside each point, free of all points and of the labels before; None where there is none.

    Points after the last size have no label, and stay free of labels: `radius` is half the side of the square around
    a point that they stay out of.
    """
    taken = [Box(x - radius, y - radius, x + radius, y + radius) for x, y in points]
    places: list[Box | None] = []
    for point, size in zip(points, sizes, strict=False):
        free = (
            box
            for box in _candidates(point, size, radius)
            if area.contains(box) and not any(box.overlaps(other) for other in taken)
        )
        place = next(free, None)
        places.append(place)
        if place is not None:
            taken.append(place)
    return places


def _candidates(point: tuple[float, float], size: tuple[float, float], radius: float) -> Iterator[Box]:
    x, y = point
    width, height = size
    for gap in _GAPS:
        reach = radius + gap
        lefts = (x + reach, x - reach - width, x - width / 2)
        bottoms = (y - height / 2, y + reach, y - reach - height)
        yield Box(lefts[0], bottoms[0], lefts[0] + width, bottoms[0] + height)
        yield Box(lefts[1], bottoms[0], lefts[1] + width, bottoms[0] + height)
        for bottom in bottoms[1:]:
            for left in (lefts[2], x, x - width):
                yield Box(left, bottom, left + width, bottom + height)

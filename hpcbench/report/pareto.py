"""The Pareto front in two figures: the points that no other point equals or beats in both.

In: pairs of figures and which end of each is better. Out: indices. `templates/report/tradeoffs.js` does the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from hpcbench.report.column import Better


def pareto_front(points: Sequence[tuple[float, float]], across: Better | None, up: Better | None) -> list[int]:
    """Return the indices of the points of the front, from left to right; none where a figure has no better end."""
    if across is None or up is None:
        return []
    x_sign, y_sign = (1.0 if better == "lower" else -1.0 for better in (across, up))
    order = sorted(range(len(points)), key=lambda n: (x_sign * points[n][0], y_sign * points[n][1]))
    front: list[int] = []
    for number in order:
        y = y_sign * points[number][1]
        if not front or y < y_sign * points[front[-1]][1] or points[number] == points[front[-1]]:
            front.append(number)
    return sorted(front, key=lambda n: points[n])

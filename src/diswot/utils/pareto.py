"""The front of several objectives: what nothing else is better than in all of them."""

from __future__ import annotations

from collections.abc import Sequence


def front(points: Sequence[Sequence[float]]) -> list[int]:
    """Places of the points that no other dominates, in their order.

    One point dominates another if it is no higher in any coordinate and lower in one. Of equal
    points the first is in the front.

    Args:
        points: N points, each lower the better.
    """
    kept: list[int] = []
    for place in sorted(range(len(points)), key=lambda place: (tuple(points[place]), place)):
        if not any(_covers(points[other], points[place]) for other in kept):
            kept.append(place)
    return sorted(kept)


def _covers(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True))

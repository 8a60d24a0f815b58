"""Pareto front of several objectives."""

from __future__ import annotations

from collections.abc import Sequence


def pareto_front(points: Sequence[Sequence[float]]) -> list[int]:
    """Return the indices of the points that no other point dominates, in ascending order.

    A point dominates another if no coordinate is higher and one is lower. Of equal points the first
    one is in the front.
    """
    kept: list[int] = []
    for place in sorted(range(len(points)), key=lambda place: (tuple(points[place]), place)):
        if not any(_covers(points[other], points[place]) for other in kept):
            kept.append(place)
    return sorted(kept)


def _covers(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True))

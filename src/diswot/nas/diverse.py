"""Students that are worth comparing: among the best by score, none a near-duplicate of another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

POOL = 4  # students are taken from the best quarter of all that are scored
SHARE = 3  # two students differ in one of this many choices at least
LEAST = 2  # and in this many choices, where the space has them


def differ(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Say whether two architectures differ in a third of their choices, and in two at least.

    A choice that only one of them has counts as different. Where both have a single choice, one
    difference is enough.
    """
    names = first.keys() | second.keys()
    there = first.keys() & second.keys()
    same = sum(bool(first[name] == second[name]) for name in there)
    return len(names) - same >= min(len(names), max(LEAST, math.ceil(len(names) / SHARE)))


def diverse(ranked: Sequence[Mapping[str, Any]], count: int) -> list[int]:
    """Return the places of some of the best architectures that differ from each other.

    From the best down, an architecture is taken if it differs from all that are taken so far. Only
    the best quarter is looked at. If it has too few different ones, the best of the others follow.

    Args:
        ranked: Parameters of the architectures, the best first.
        count: Number of architectures that are wanted.

    Returns:
        Places in `ranked`: first those that differ, the best first.
    """
    taken: list[int] = []
    for place in range(min(len(ranked), max(count, math.ceil(len(ranked) / POOL)))):
        if len(taken) < count and all(differ(ranked[place], ranked[one]) for one in taken):
            taken.append(place)
    others = (place for place in range(len(ranked)) if place not in taken)
    return taken + [place for place, _ in zip(others, range(count - len(taken)), strict=False)]

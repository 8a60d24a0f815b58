"""Checked values of files that anybody may have written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

Facts = dict[str, Any]


def numbers(value: object) -> dict[str, float]:
    """Return the entries of a mapping whose values are finite numbers."""
    return {k: v for k, inner in mapping(value).items() if (v := number(inner)) is not None}


def mapping(value: object) -> Facts:
    """Return a mapping as a dict; an empty dict for any other value."""
    return dict(value) if isinstance(value, Mapping) else {}


def listed(value: object) -> list[Any]:
    """Return a list or a tuple as a list; an empty list for any other value."""
    return list(value) if isinstance(value, list | tuple) else []


def number(value: object) -> float | None:
    """Return a finite number; None for any other value."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # an integer that no float holds
        return None

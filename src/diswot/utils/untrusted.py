"""Values of files that anybody may have written, taken only for what they are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

Facts = dict[str, Any]


def numbers(value: object) -> dict[str, float]:
    """The finite numbers of a mapping."""
    return {k: v for k, inner in mapping(value).items() if (v := number(inner)) is not None}


def mapping(value: object) -> Facts:
    """A mapping, or an empty one."""
    return dict(value) if isinstance(value, Mapping) else {}


def number(value: object) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if math.isfinite(value) else None

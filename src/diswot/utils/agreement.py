"""Whether a run that is resumed agrees with the run that began."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from diswot.errors import UserError

LONGEST = 200  # characters of a value in an error


def require_same(before: Mapping[str, Any], now: Mapping[str, Any], what: str) -> None:
    """Refuse to resume a run, `what`, whose facts have changed since it began.

    Values are compared as JSON holds them, so that a tuple equals the list that was stored.
    Mappings are compared value by value. A fact that one side lacks counts as None there.

    Raises:
        UserError: A fact differs; the error names the first in alphabetical order, with both
            values.
    """
    _compare(plain(before), plain(now), what)


def plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts as JSON holds them: lists for tuples, plain numbers, texts for all else."""
    held: dict[str, Any] = json.loads(json.dumps(dict(facts), default=_plain))
    return held


def finite(value: Any) -> Any:
    """Return a value with None for numbers that are not finite, which JSON cannot hold."""
    if isinstance(value, Mapping):
        return {name: finite(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(value: object) -> float | str:
    return float(value) if hasattr(value, "__float__") else str(value)


def _compare(before: dict[str, Any], now: dict[str, Any], what: str) -> None:
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            _compare(old, new, what)
        elif old != new:
            long = max(len(repr(old)), len(repr(new))) > LONGEST
            difference = f"another {name}" if long else f"{name} = {old!r}, not {new!r}"
            raise UserError(f"{what} has {difference}")

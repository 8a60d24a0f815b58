"""Formats of numbers, times and names in a report; an unknown value is a dash."""

from __future__ import annotations

import json
from collections.abc import Callable

from diswot.utils.environment import without_passwords
from diswot.utils.units import show_bytes, show_count, show_number
from diswot.utils.untrusted import number

MISSING = "-"


def _shown(value: object, show: Callable[[float], str]) -> str:
    known = number(value)
    return MISSING if known is None else show(known)


def count(value: object) -> str:
    """Format a count with its unit."""
    return _shown(value, show_count)


def decimal(value: object, form: str = ".5g") -> str:
    """Format a number by a format specification."""
    return _shown(value, lambda known: format(known, form))


def cost(value: object, name: str) -> str:
    """Format a cost, by its name, with its unit; latency is in milliseconds."""
    if name == "latency":
        return _shown(value, lambda seconds: f"{1000 * seconds:.3g} ms")
    return _shown(value, show_bytes) if name == "memory" else decimal(value)


def epochs(value: object) -> str:
    """Format a number of epochs."""
    return show_number(value, "epoch")


def duration(value: object) -> str:
    """Format seconds as seconds, minutes or hours."""
    seconds = number(value)
    if seconds is None:
        return MISSING
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def pretty(value: object) -> str:
    """Format a value as indented JSON, with passwords masked."""
    return without_passwords(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def basename(name: str) -> str:
    """Return the last part of a path; a name without slashes is returned unchanged."""
    return name.rstrip("/").rpartition("/")[2] or name

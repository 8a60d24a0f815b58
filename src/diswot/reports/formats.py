"""How a report writes numbers, times and names; what is not known is a dash."""

from __future__ import annotations

import json

from diswot.utils.environment import masked
from diswot.utils.units import show_bytes, show_count, show_seconds
from diswot.utils.untrusted import number

NONE = "-"


def count(value: object) -> str:
    """A count with its unit, or a dash."""
    known = number(value)
    return NONE if known is None else show_count(known)


def figure(value: object, form: str = ".5g") -> str:
    """A number in a form, or a dash."""
    known = number(value)
    return NONE if known is None else format(known, form)


def quantity(value: object, name: str) -> str:
    """A cost with its unit."""
    known = number(value)
    if known is None:
        return NONE
    if name == "latency":
        return show_seconds(known)
    return show_bytes(known) if name == "memory" else format(known, ".5g")


def epochs(value: object) -> str:
    """So many epochs."""
    return f"{value} epoch{'' if value == 1 else 's'}"


def span(value: object) -> str:
    """Seconds as people say them."""
    seconds = number(value)
    if seconds is None:
        return NONE
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def pretty(value: object) -> str:
    """JSON over several lines, without passwords."""
    return masked(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def last(name: str) -> str:
    """A name, and of a path only what comes last."""
    return name.rstrip("/").rpartition("/")[2] or name

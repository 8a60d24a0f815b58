"""Numbers with units, such as 5M, 64MB and 8ms, as text and from text; parameters as text."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from diswot.errors import UserError

_POWERS = {"": 0, "K": 3, "M": 6, "G": 9, "B": 9}
_NUMBER = r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:e([0-9]{1,2}))?"
_BYTES = {"": 1, "B": 1}
_BYTES |= {f"{letter}{b}": 1000**n for n, letter in enumerate("KMG", 1) for b in ("", "B")}
_BYTES |= {f"{letter}IB": 1024**n for n, letter in enumerate("KMG", 1)}
_SECONDS = {"s": 0, "ms": -3, "us": -6, "µs": -6, "μs": -6}  # powers of ten


def parse_count(text: str) -> float:
    """Read a number such as 400000, 0.4M or 1.2G.

    Raises:
        UserError: The text is not such a number, or the number is not above zero.
    """
    match = re.fullmatch(_NUMBER + "([KMGB]?)", text.strip(), re.ASCII | re.IGNORECASE)
    if not match:
        raise UserError(f"{text!r} is no number such as 400000, 0.4M or 1.2G")
    number, exponent, unit = match.groups()
    return _limit(text, float(f"{number}e{int(exponent or 0) + _POWERS[unit.upper()]}"))


def parse_bytes(text: str) -> float:
    """Read a size in bytes, such as 64MB (1 MB = 1,000,000), 64MiB (1 MiB = 1,048,576) or 500000.

    Raises:
        UserError: The text is not such a size, or the size is not above zero.
    """
    match = re.fullmatch(_NUMBER + "([KMG]?(?:i?B)?)", text.strip(), re.ASCII | re.IGNORECASE)
    unit = match and _BYTES.get(match[3].upper())
    if not match or not unit:
        raise UserError(f"{text!r} is no size such as 64MB, 64MiB or 500000 (bytes)")
    return _limit(text, float(f"{match[1]}e{match[2] or 0}") * unit)


def parse_seconds(text: str) -> float:
    """Read a time, such as 8ms, 0.5s or 900us, in seconds.

    Raises:
        UserError: The text is not such a time, or the time is not above zero.
    """
    match = re.fullmatch(_NUMBER + "(s|ms|us|[µμ]s)", text.strip())
    if not match:
        raise UserError(f"{text!r} is no time with its unit, such as 8ms, 0.5s or 900us")
    return _limit(text, float(f"{match[1]}e{int(match[2] or 0) + _SECONDS[match[3]]}"))


def _limit(text: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise UserError(f"a limit must be above zero and finite, not {text!r}")
    return value


def show_count(number: float) -> str:
    """Write a count with three digits and a unit, such as 278K for 278324."""
    rounded = float(f"{number:.3g}")
    for unit, size in (("G", 1e9), ("M", 1e6), ("K", 1e3)):
        if rounded >= size:
            return f"{rounded / size:.15g}{unit}"
    return f"{rounded:g}"


def show_number(number: object, one: str, several: str = "") -> str:
    """Write a number with its noun, such as `1 epoch` and `3 epochs`.

    The plural is the singular with an s, if none is given.
    """
    return f"{number} {one if number == 1 else several or one + 's'}"


def show_bytes(number: float) -> str:
    """Write a size in bytes with three digits and a unit, such as 1.57MB for 1572864."""
    return f"{show_count(number)}B"


def show_seconds(number: float) -> str:
    """Write a time in seconds with three digits and a unit, such as 8.12ms for 0.00812."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if float(f"{number:.3g}") >= size:
            return f"{float(f'{number / size:.3g}'):.15g}{unit}"
    return f"{float(f'{number / 1e-6:.3g}'):.15g}us"


def show_params(params: Mapping[str, object]) -> str:
    """Write the parameters of an architecture on one line, such as `depth=2 width=64`."""
    return " ".join(f"{name}={value}" for name, value in params.items())

"""Architectures in the notations of published tables.

The module of a space has a function that converts the notation to parameters. It is imported on
first use, as timm, which some need, takes seconds.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple

from diswot.errors import UserError
from diswot.ranking.tables.raw_rows import RawRow
from diswot.spaces.registry import SPACES, Params

_INITIALS = {"3": "conv3x3-bn-relu", "1": "conv1x1-bn-relu", "p": "maxpool3x3"}
_MISSING = ("", "nan", "na", "null", "none", "-")
_AFTER = r"(?:\s*(?:±|\+/?-|\$?\\pm\$?)\s*[\d.]+|\s*\(\s*[\d.]+\s*\))?"
_WITH_DEVIATION = re.compile(rf"([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*%?{_AFTER}\s*%?")
_MAX_NAME = 60  # characters of an architecture's name


class ParsedRow(NamedTuple):
    """The architecture of a raw row, and the columns that describe it."""

    name: str
    params: Params
    columns: set[str]


@dataclass(frozen=True)
class Notation:
    """A column that holds a whole architecture.

    Attributes:
        column: Name of the column.
        kind: Type of its values: text, or a dict.
        function: Name of the function in the module of the space.
        also: Columns that are part of the name of a row, if they are there.
    """

    column: str = "arch"
    kind: type = str
    function: str = "from_arch"
    also: tuple[str, ...] = ()


NOTATIONS: dict[str, Notation] = {
    "nasbench201": Notation(function="from_string"),
    "autoformer": Notation(kind=dict),
    "pit": Notation(kind=dict),
    "transnas_micro": Notation(function="from_micro"),
    "transnas_macro": Notation(function="from_macro"),
    "transnas_micro_seg": Notation(function="from_micro"),
    "transnas_macro_seg": Notation(function="from_macro"),
    "nasbench_macro": Notation(),
    "nasbench_mr": Notation("embedding"),
    "nasbench_mr_seg": Notation("embedding"),
    "timm_zoo": Notation("model", also=("tag", "img_size")),
}


def parse(space: str, raw: RawRow) -> ParsedRow | None:
    """Read the architecture of a raw row; None if the row has no column in a published notation.

    The name of a space that is a list may have a pattern after a colon.

    Raises:
        UserError: The column does not hold an architecture of the space.
    """
    if space == "nasbench101":
        return _nasbench101(raw)
    plain, _, pattern = space.partition(":")
    notation = NOTATIONS.get(plain)
    value = None if notation is None else raw.get(notation.column)
    if notation is None or not isinstance(value, notation.kind):
        return None
    convert = getattr(import_module(f"diswot.spaces.{SPACES[plain].module}"), notation.function)
    params: Params = convert(value, *filter(None, [pattern]))
    name = value if isinstance(value, str) else short_name(params)
    more = [str(raw[column]) for column in notation.also if raw.get(column) not in (None, "")]
    return ParsedRow(" ".join([name, *more]), params, {notation.column, *notation.also})


def short_name(params: Mapping[str, Any]) -> str:
    """Join the values of the parameters; a long name is cut and gets a checksum."""
    text = "-".join(str(value) for value in params.values())
    if len(text) <= _MAX_NAME:
        return text
    return f"{text[:_MAX_NAME]}~{zlib.crc32(text.encode()):08x}"


def number(value: object) -> float | None:
    """Return the number of a cell: NaN for a missing value, None for text.

    A percent sign is dropped, and so is a deviation, as in `71.2 ± 0.2` and `71.2 (0.2)`.
    """
    if value is None or (isinstance(value, str) and value.strip().lower() in _MISSING):
        return math.nan
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    form = _WITH_DEVIATION.fullmatch(value.strip()) if isinstance(value, str) else None
    try:
        found = float(value if form is None else form[1])
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) or math.isnan(found) else None


def _nasbench101(raw: RawRow) -> ParsedRow | None:
    if not {"adjacency", "ops"} <= raw.keys():
        return None
    from diswot.spaces import nasbench101

    bits, letters = str(raw["adjacency"]), str(raw["ops"] or "")
    side = math.isqrt(len(bits))
    if side**2 != len(bits) or set(bits) - set("01"):
        raise UserError(f"the adjacency {bits!r} is not a square matrix of 0s and 1s, row by row")
    if bad := set(letters) - set(_INITIALS):
        raise UserError(f"unknown operation {min(bad)!r} in {letters!r}; known: 3, 1, p")
    matrix = [[int(bit) for bit in bits[i * side : (i + 1) * side]] for i in range(side)]
    operations = ["input", *(_INITIALS[letter] for letter in letters), "output"]
    size = number(raw.get("params"))
    count = None if size is None or math.isnan(size) else int(size)
    params = nasbench101.from_matrix(matrix, operations, count)
    name = str(raw.get("hash") or f"{bits}-{letters}")
    return ParsedRow(name, params, {"adjacency", "ops", "hash"})

"""Conditions on the rows of a table, such as `tag=in1k` and `params_m<13`."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase

from diswot.errors import UserError, unknown
from diswot.ranking.tables.notations import number
from diswot.ranking.tables.raw_rows import RawRow

_FORM = re.compile(r"\s*([^<>=]+?)\s*(<=|>=|<|>|=)\s*(.*?)\s*", re.DOTALL)
_ORDER: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def select(rows: Sequence[RawRow], conditions: Iterable[str]) -> list[RawRow]:
    """Return the rows that meet all conditions.

    Args:
        rows: Cells by column.
        conditions: Each a column, one of `=`, `<`, `<=`, `>`, `>=`, and a value. After `=` stand
            shell patterns, separated by commas, of which one must match. A cell that is no number
            is neither less nor greater.

    Raises:
        UserError: A condition has another form, its column does not exist, or no row meets it.
    """
    left = list(rows)
    for condition in conditions:
        column, test = _parse(condition)
        if not any(column in row for row in rows):
            raise unknown("column", column, dict.fromkeys(name for row in rows for name in row))
        left = [row for row in left if test(row.get(column))]
        if not left:
            raise UserError(f"no row is left with {condition}")
    return left


def _parse(condition: str) -> tuple[str, Callable[[object], bool]]:
    """Return the column of a condition, and the function that tests a cell."""
    form = _FORM.fullmatch(condition)
    if form is None:
        raise UserError(f"a condition is such as tag=in1k or params_m<13, not {condition!r}")
    column, sign, value = form.groups()
    if sign == "=":
        patterns = [pattern.strip() for pattern in value.split(",")]
        return column, lambda cell: any(fnmatchcase(str(cell), each) for each in patterns)
    limit = number(value)
    if limit is None or math.isnan(limit):
        raise UserError(f"{condition!r} compares with {value!r}, which is no number")
    return column, lambda cell: (found := number(cell)) is not None and _ORDER[sign](found, limit)

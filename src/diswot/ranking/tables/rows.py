"""The accuracy table, made from the raw rows of a file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from diswot.errors import UserError, unknown
from diswot.models.weightless import Weightless
from diswot.ranking.tables import notations
from diswot.ranking.tables.notations import ParsedRow, RowReader
from diswot.ranking.tables.raw_rows import RawRow
from diswot.spaces.registry import Params, create_space
from diswot.spaces.trials import FixedParamsTrial

# Beginnings of columns in published tables that hold numbers, but no accuracies.
_SIZES = ("params", "macs", "gmacs", "flops", "depth", "img_size", "vertices")
_NOT_ACCURACIES = ("index", "latency", "seconds", "cpu_images_per_second", *_SIZES)


@dataclass(frozen=True)
class ArchitectureRow:
    """An architecture with its accuracies.

    Attributes:
        name: Short name, unique within the table.
        params: Parameters of the space.
        accuracies: Accuracies in percent by column; NaN is a missing accuracy.
    """

    name: str
    params: Params
    accuracies: dict[str, float]


@dataclass(frozen=True)
class AccuracyTable:
    """Architectures of one space with their accuracies.

    Attributes:
        name: Name of the file.
        space: Space of the architectures: a key of `SPACES`, or `file.py:function`.
        targets: Columns of accuracies, in the file's order.
        rows: Architectures, in the file's order.
    """

    name: str
    space: str
    targets: tuple[str, ...]
    rows: tuple[ArchitectureRow, ...] = field(repr=False)


def make_table(name: str, space: str, raw_rows: Sequence[RawRow], read: RowReader) -> AccuracyTable:
    """Make a table from the raw rows of a file.

    Args:
        name: Name of the file.
        space: Space of the architectures.
        raw_rows: Rows of the file.
        read: Reader of the architecture in a row.

    Raises:
        UserError: The file has no rows or no accuracies, or a row is not an architecture.
    """
    if not raw_rows:
        raise UserError(f"{name} has no rows")
    named: list[tuple[str, Params]] = []
    numbers: list[dict[str, float | None]] = []
    for number, raw in enumerate(raw_rows, 1):
        try:
            title, params, columns = read(raw)
        except UserError as error:
            raise UserError(f"{name}, row {number}: {error}") from error
        named.append((title, params))
        numbers.append(_numbers(raw, columns))
    _check_unique(name, [title for title, _ in named])
    targets = _targets(numbers)
    if not targets:
        raise UserError(f"{name} has no column of accuracies{_first_text(numbers)}")
    scales = {target: _scale(target, numbers) for target in targets}
    rows = (
        ArchitectureRow(
            title, params, {t: (row.get(t, math.nan) or 0.0) * scales[t] for t in targets}
        )
        for (title, params), row in zip(named, numbers, strict=True)
    )
    return AccuracyTable(name, space, targets, tuple(rows))


def _check_unique(name: str, titles: Sequence[str]) -> None:
    first: dict[str, int] = {}
    for number, title in enumerate(titles, 1):
        if title in first:
            raise UserError(f"{name}, row {number}: {title} is also row {first[title]}")
        first[title] = number


def row_reader(space: str) -> RowReader:
    """Return the function that reads the architecture of a raw row of a space."""
    by_params = _params_reader(space)
    return lambda raw: notations.parse(space, raw) or by_params(raw)


def _params_reader(space: str) -> RowReader:
    """Return a reader of parameters in columns, or in a dict in `params`.

    The space checks them on the meta device, where weights take no memory.
    """
    build = create_space(space)

    def read(raw: RawRow) -> ParsedRow:
        value = raw.get("params")
        inner = value if isinstance(value, dict) else None
        trial = _TypedTrial(raw if inner is None else inner)
        try:
            with Weightless():
                build(trial)
        except UserError:
            raise
        except Exception:
            pass  # a network that cannot be built fails again when it is scored
        params = {name: trial.params[name] for name in trial.distributions}
        if inner is not None and (spare := inner.keys() - params.keys()):
            raise unknown("parameter", min(spare), params)
        columns = set(params) if inner is None else {"params"}
        return ParsedRow(notations.short_name(params), params, columns)

    return read


class _TypedTrial(FixedParamsTrial):
    """Trial with the parameters of a raw row; the text "3" becomes the choice 3."""

    def __init__(self, raw: RawRow) -> None:
        super().__init__({name: value for name, value in raw.items() if value != ""})

    def choose(self, name: str, distribution: BaseDistribution) -> Any:
        """Return the value of a parameter, of the type that its choices have."""
        value = self.given.get(name)
        if isinstance(value, str):
            self.given[name] = _typed(value, distribution)
        return super().choose(name, distribution)


def _typed(text: str, distribution: BaseDistribution) -> Any:
    """Return the value that a text stands for, or the text if it fits none."""
    if isinstance(distribution, CategoricalDistribution):
        return next((c for c in distribution.choices if _same(c, text)), text)
    try:
        number = float(text)
    except ValueError:
        return text
    whole = isinstance(distribution, IntDistribution) and number.is_integer()
    return int(number) if whole else number


def _same(choice: object, text: str) -> bool:
    if isinstance(choice, bool) or choice is None or isinstance(choice, str):
        return str(choice).lower() == text.lower()
    try:
        return choice == float(text)
    except ValueError:
        return False


def _numbers(raw: RawRow, columns: set[str]) -> dict[str, float | None]:
    """Return the other columns as numbers: NaN for a missing value, None for text."""
    return {
        name: notations.number(value)
        for name, value in raw.items()
        if name not in columns and not name.lower().startswith(_NOT_ACCURACIES)
    }


def _targets(found: Sequence[Mapping[str, float | None]]) -> tuple[str, ...]:
    """Return the columns of numbers; some may be missing, but not all."""
    names = dict.fromkeys(name for row in found for name in row)
    columns = {name: [row.get(name, math.nan) for row in found] for name in names}
    return tuple(
        name
        for name, values in columns.items()
        if None not in values and not all(value is None or math.isnan(value) for value in values)
    )


def _first_text(found: Sequence[Mapping[str, float | None]]) -> str:
    """Name the first cell with text, for the error of a table without accuracies."""
    places = ((number, row) for number, row in enumerate(found, 1) if None in row.values())
    for number, row in places:
        column = next(name for name, value in row.items() if value is None)
        return f": {column} is not a number in row {number}"
    return ""


def _scale(name: str, found: Sequence[Mapping[str, float | None]]) -> float:
    """Return the factor to percent: 100 for a column of shares, else 1."""
    known = [v for row in found if (v := row.get(name)) is not None and not math.isnan(v)]
    return 100.0 if all(0 <= value <= 1 for value in known) else 1.0

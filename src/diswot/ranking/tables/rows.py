"""The accuracy table, made from the raw rows of a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from diswot.errors import UserError, unknown
from diswot.models.weightless import Weightless
from diswot.proxies.registry import PROXIES
from diswot.ranking.tables import notations
from diswot.ranking.tables.notations import ParsedRow
from diswot.ranking.tables.raw_rows import RawRow
from diswot.ranking.tables.targets import BESIDE_SCORE, TargetColumn, target_column
from diswot.spaces.registry import Params, create_space
from diswot.spaces.trials import FixedParamsTrial


@dataclass(frozen=True)
class ArchitectureRow:
    """An architecture and its accuracies in percent by column; NaN is a missing accuracy."""

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
        impossible: Number of cells of a column that cannot be accuracies and count as missing.
    """

    name: str
    space: str
    targets: tuple[str, ...]
    rows: tuple[ArchitectureRow, ...] = field(repr=False)
    impossible: Mapping[str, int] = field(default_factory=dict)

    @property
    def accuracies(self) -> dict[str, list[float]]:
        """Return the accuracies by column."""
        return {name: [row.accuracies[name] for row in self.rows] for name in self.targets}


def make_table(name: str, space: str, raw_rows: Sequence[RawRow]) -> AccuracyTable:
    """Make a table from the raw rows of a file.

    Raises:
        UserError: The file has no rows or no accuracies, or a row is not an architecture.
    """
    if not raw_rows:
        raise UserError(f"{name} has no rows")
    read = _row_reader(space)
    parsed: list[ParsedRow] = []
    for row, raw in enumerate(raw_rows, 1):
        try:
            parsed.append(read(raw))
        except UserError as error:
            raise UserError(f"{name}, row {row}: {error}") from error
    _check_unique(name, [each.name for each in parsed])
    cells = _cells(raw_rows, parsed)
    found = [target_column(column, values) for column, values in cells.items()]
    columns = [_beside_scores(column) for column in found if column is not None]
    if not columns:
        raise UserError(f"{name} has no column of accuracies{_reason(cells)}")
    rows = (
        ArchitectureRow(each.name, each.params, {c.name: c.values[place] for c in columns})
        for place, each in enumerate(parsed)
    )
    impossible = {column.name: column.impossible for column in columns if column.impossible}
    return AccuracyTable(name, space, tuple(c.name for c in columns), tuple(rows), impossible)


def _cells(raw_rows: Sequence[RawRow], parsed: Sequence[ParsedRow]) -> dict[str, list[object]]:
    """Return the columns that describe no row's architecture; None is a missing cell."""
    asked = set().union(*(row.columns for row in parsed))
    names = dict.fromkeys(name for raw in raw_rows for name in raw if name not in asked)
    return {name: [raw.get(name) for raw in raw_rows] for name in names}


def _beside_scores(column: TargetColumn) -> TargetColumn:
    """Rename a column that has the name of a score."""
    name = f"{column.name}{BESIDE_SCORE}" if column.name in PROXIES else column.name
    return replace(column, name=name)


def _check_unique(name: str, titles: Sequence[str]) -> None:
    first: dict[str, int] = {}
    for number, title in enumerate(titles, 1):
        if title in first:
            raise UserError(f"{name}, row {number}: {title} is also row {first[title]}")
        first[title] = number


def _row_reader(space: str) -> Callable[[RawRow], ParsedRow]:
    """Return the function that reads the architecture of a raw row of a space.

    It stands in a published notation; or as parameters in columns, or in a dict in `params`. The
    space checks parameters on the meta device, where weights take no memory; a space that fails
    there is run again with weights, as it may ask for more parameters.
    """
    build = create_space(space)

    def read(raw: RawRow) -> ParsedRow:
        if published := notations.parse(space, raw):
            return published
        value = raw.get("params")
        inner = value if isinstance(value, dict) else None
        for context in (Weightless, nullcontext):
            trial = _TypedTrial(raw if inner is None else inner)
            try:
                with context():
                    build(trial)
                break
            except UserError:
                raise
            except Exception:
                continue  # a network that cannot be built fails again when it is scored
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


def _reason(cells: Mapping[str, Sequence[object]]) -> str:
    """Name the first cell with text, or else all columns, for the error of a table."""
    texts = (
        (row, name)
        for name, values in cells.items()
        for row, value in enumerate(values, 1)
        if notations.number(value) is None
    )
    row, name = min(texts, default=(0, ""), key=lambda each: each[0])
    if row:
        return f": {name} is not a number in row {row}"
    return f"; its other columns are {', '.join(cells)}" if cells else ""

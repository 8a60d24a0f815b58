"""A table, and its rows from what a file held."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from diswot.errors import UserError, unknown
from diswot.spaces import nasbench101, nasbench201
from diswot.spaces.registry import Params, create_space
from diswot.spaces.trials import FixedParamsTrial

Record = Mapping[str, Any]
Named = tuple[str, Params, set[str]]  # a name, the parameters, and the columns they are in
Reader = Callable[[Record], Named]

# Numbers in published tables that are no accuracies.
_FACTS = ("index", "vertices", "params", "macs", "flops", "latency", "seconds", "depth")
_MISSING = ("", "nan", "na", "null", "none", "-")
_INITIALS = {"3": "conv3x3-bn-relu", "1": "conv1x1-bn-relu", "p": "maxpool3x3"}
_SHOWN = 60  # characters of a name


@dataclass(frozen=True)
class Row:
    """One architecture.

    Attributes:
        name: Short, and its own within the table.
        params: What `spaces.network` takes.
        accuracies: By column, in percent; NaN is missing.
    """

    name: str
    params: Params
    accuracies: dict[str, float]


@dataclass(frozen=True)
class Table:
    """Architectures of one space with their accuracies.

    Attributes:
        name: Of the file.
        space: Key of `SPACES`, or `file.py:function`.
        targets: Columns of accuracies, in the file's order.
        rows: In the file's order.
    """

    name: str
    space: str
    targets: tuple[str, ...]
    rows: tuple[Row, ...]


def table_of(name: str, space: str, records: Sequence[Record], read: Reader) -> Table:
    """Turn what a file held into a table.

    Raises:
        UserError: There are no rows, none has an accuracy, or one is no architecture.
    """
    if not records:
        raise UserError(f"{name} has no rows")
    named: list[tuple[str, Params]] = []
    numbers: list[dict[str, float | None]] = []
    for number, record in enumerate(records, 1):
        try:
            title, params, used = read(record)
        except UserError as error:
            raise UserError(f"{name}, row {number}: {error}") from error
        named.append((title, params))
        numbers.append(_numbers(record, used))
    _refuse_twice(name, [title for title, _ in named])
    targets = _targets(numbers)
    if not targets:
        raise UserError(f"{name} has no column of accuracies{_text(numbers)}")
    scales = {target: _scale(target, numbers) for target in targets}
    rows = (
        Row(title, params, {t: (row.get(t, math.nan) or 0.0) * scales[t] for t in targets})
        for (title, params), row in zip(named, numbers, strict=True)
    )
    return Table(name, space, targets, tuple(rows))


def _refuse_twice(name: str, titles: Sequence[str]) -> None:
    first: dict[str, int] = {}
    for number, title in enumerate(titles, 1):
        if title in first:
            raise UserError(f"{name}, row {number}: {title} is row {first[title]} already")
        first[title] = number


def params_of(space: str) -> Reader:
    """How the rows of a space say which architecture they are of."""
    published = {
        "nasbench201": _nasbench201,
        "nasbench101": _nasbench101,
        "autoformer": _autoformer,
    }
    plain, known = _plain(space), published.get(space)
    if known is None:
        return plain
    return lambda record: known(record) or plain(record)


def _nasbench201(record: Record) -> Named | None:
    if "arch" not in record:
        return None
    text = str(record["arch"])
    return text, nasbench201.from_string(text), {"arch"}


def _nasbench101(record: Record) -> Named | None:
    if not {"adjacency", "ops"} <= record.keys():
        return None
    bits, letters = str(record["adjacency"]), str(record["ops"] or "")
    side = math.isqrt(len(bits))
    if side**2 != len(bits) or set(bits) - set("01"):
        raise UserError(f"the adjacency {bits!r} is no square of 0s and 1s, row after row")
    if bad := set(letters) - set(_INITIALS):
        raise UserError(f"unknown operation {min(bad)!r} in {letters!r}; known: 3, 1, p")
    matrix = [[int(bit) for bit in bits[i * side : (i + 1) * side]] for i in range(side)]
    operations = ["input", *(_INITIALS[letter] for letter in letters), "output"]
    size = _number(record.get("params"))
    count = None if size is None or math.isnan(size) else int(size)
    params = nasbench101.from_matrix(matrix, operations, count)
    return str(record.get("hash") or f"{bits}-{letters}"), params, {"adjacency", "ops", "hash"}


def _autoformer(record: Record) -> Named | None:
    arch = record.get("arch")
    if not isinstance(arch, dict):
        return None
    from diswot.spaces import autoformer  # of timm, which takes seconds

    params = autoformer.from_arch(arch)
    return _short(params), params, {"arch"}


def _plain(space: str) -> Reader:
    """Parameters in columns, or in a dict in `params`; no weight is allocated to check them."""
    build = create_space(space)

    def read(record: Record) -> Named:
        held = record.get("params")
        inner = held if isinstance(held, dict) else None
        trial = _Typed(record if inner is None else inner)
        try:
            with torch.device("meta"):
                build(trial)
        except UserError:
            raise
        except Exception:
            pass  # that a network fails is for its scoring to say
        params = {name: trial.params[name] for name in trial.distributions}
        if inner is not None and (spare := inner.keys() - params.keys()):
            raise unknown("parameter", min(spare), params)
        return _short(params), params, set(params) if inner is None else {"params"}

    return read


class _Typed(FixedParamsTrial):
    """Takes values as a file writes them: "3" where the choices have 3."""

    def __init__(self, record: Record) -> None:
        super().__init__({name: value for name, value in record.items() if value != ""})

    def choose(self, name: str, distribution: BaseDistribution) -> Any:
        """Return the value of a parameter, of the type that its choices have."""
        value = self.given.get(name)
        if isinstance(value, str):
            self.given[name] = _typed(value, distribution)
        return super().choose(name, distribution)


def _typed(text: str, distribution: BaseDistribution) -> Any:
    """The choice that is written so, or the text itself."""
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


def _short(params: Params) -> str:
    """The values of the parameters; what is long is cut, with a number of its own."""
    text = "-".join(str(value) for value in params.values())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}~{zlib.crc32(text.encode()):08x}"


def _numbers(record: Record, used: set[str]) -> dict[str, float | None]:
    """What may be accuracies by column: NaN where missing, None where there is text."""
    return {
        name: _number(value)
        for name, value in record.items()
        if name not in used and not name.lower().startswith(_FACTS)
    }


def _number(value: object) -> float | None:
    if value is None or (isinstance(value, str) and value.strip().lower() in _MISSING):
        return math.nan
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) or math.isnan(number) else None


def _targets(found: Sequence[Mapping[str, float | None]]) -> tuple[str, ...]:
    """Columns in which every row has a number or nothing, and not all have nothing."""
    names = dict.fromkeys(name for row in found for name in row)
    columns = {name: [row.get(name, math.nan) for row in found] for name in names}
    return tuple(
        name
        for name, values in columns.items()
        if None not in values and not all(value is None or math.isnan(value) for value in values)
    )


def _text(found: Sequence[Mapping[str, float | None]]) -> str:
    """Where the first text is that may have been meant to be a number."""
    places = ((number, row) for number, row in enumerate(found, 1) if None in row.values())
    for number, row in places:
        column = next(name for name, value in row.items() if value is None)
        return f": {column} is no number in row {number}"
    return ""


def _scale(name: str, found: Sequence[Mapping[str, float | None]]) -> float:
    """100 for a column of shares, 1 for one of percent."""
    known = [v for row in found if (v := row.get(name)) is not None and not math.isnan(v)]
    return 100.0 if all(0 <= value <= 1 for value in known) else 1.0

"""Columns of a table that may be accuracies, recognised by their names and values.

An error becomes 100 minus the error, a loss its negative, so that higher is better in each column.
The new names, `100-top1_error` and `-test_loss`, say so.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from diswot.errors import UserError, unknown
from diswot.ranking.tables.notations import cell_number

# Ending of a column of distilled students, and of the column of the same students trained alone.
_VANILLA = {"distilled_acc": "vanilla_acc", "kd_acc": "base_acc"}

_ACCURACY = {"acc", "accuracy", "accuracies", "top", "miou", "map", "auc", "auroc", "f1"}
_ERROR = {
    *("err", "error", "errors", "wer", "cer", "eer", "fpr", "fnr", "regret", "inaccuracy"),
    *("misclassification", "misclassifications", "misclassified", "misclass"),
}
_REST = re.compile(r"(1|100)\s*[-\u2212\u2013]")  # beginning of `1-acc`, which is an error
_LOSS = {"loss", "losses", "nll", "perplexity", "ppl", "mse", "rmse", "mae", "brier", "ece"}
_DROP = {"drop", "gap", "degradation"}  # of an accuracy, which is an error
_SECOND = {"train", "training", "top5", "acc5"}  # accuracies that are seldom the target
_SPREAD = {"std", "stdev", "sd", "sem", "stderr", "se", "var", "variance", "ci"}
_OTHER = {
    *("id", "ids", "idx", "index", "uid", "unnamed", "row", "rank", "number", "num", "count"),
    *("seed", "seeds", "run", "trial", "fold", "repeat", "epoch", "epochs", "step", "steps"),
    *("iter", "iters", "iterations", "batch", "lr", "learning", "decay", "momentum", "warmup"),
    *("time", "seconds", "secs", "sec", "minutes", "hours", "ms", "latency", "throughput", "fps"),
    *("speed", "energy", "memory", "mem", "mb", "gb", "bytes", "params", "param", "parameters"),
    *("macs", "gmacs", "mmacs", "flops", "gflops", "mflops", "madds", "depth", "width", "height"),
    *("layers", "blocks", "channels", "vertices", "resolution", "img", "image", "gpu", "cpu"),
    *("year", "date", "timestamp", "temperature", "size"),
}
# Beginnings of columns in published tables that hold numbers, but no accuracies.
_BEGINNINGS = (
    *("index", "latency", "seconds", "params", "macs", "gmacs", "flops", "depth"),
    *("img_size", "vertices", "cpu_images_per_second"),
)

BESIDE_SCORE = "_acc"  # ending of an accuracy that the file calls as a score, such as kd
_FROM_ERROR, _FROM_LOSS = "100-", "-"
_NAME_IT = "name one (--target, or targets in a study)"


@dataclass(frozen=True)
class TargetColumn:
    """A column of numbers, of which higher ones are better.

    Attributes:
        name: Name of the column; it says whether an error or a loss was turned round.
        values: Numbers in percent, or the negatives of losses; NaN is a missing one.
        impossible: Number of cells that cannot be accuracies and count as missing, such as -1.
    """

    name: str
    values: list[float]
    impossible: int = 0


def target_column(name: str, cells: Sequence[object]) -> TargetColumn | None:
    """Read a column of a table; None if its numbers are no accuracies, or if it holds text."""
    if _other(name):
        return None
    numbers = [cell_number(cell) for cell in cells]
    if _is(name, _LOSS):
        negative = [math.nan if v is None else -v for v in numbers]
        usable = None not in numbers and not all(map(math.isnan, negative))
        return TargetColumn(f"{_FROM_LOSS}{name}", negative) if usable else None
    named = _is(name, _ACCURACY) or _is_error(name)
    if not named and (None in numbers or _counts_rows(numbers)):
        return None
    given = [v for v in numbers if v is None or not math.isnan(v)]
    possible: Callable[[float], bool] = (lambda v: 0 <= v <= 100) if named else (lambda v: v != -1)
    kept = [v if v is not None and possible(v) else math.nan for v in numbers]
    known = [v for v in kept if not math.isnan(v)]
    if not known or 2 * len(known) < len(given):
        return None
    if not any(isinstance(cell, str) and "%" in cell for cell in cells) and max(known) <= 1:
        kept = [100 * v if min(known) >= 0 else v for v in kept]
    if not named and min(known) < 0:  # as negative scores are; -1 is one of them
        return TargetColumn(name, [math.nan if v is None else v for v in numbers])
    if _is_error(name):
        name, kept = f"{_FROM_ERROR}{name}", [100 - v for v in kept]
    return TargetColumn(name, kept, len(given) - len(known))


def choose_target(columns: Mapping[str, Sequence[float]], name: str | None = None) -> str:
    """Return the column of accuracies to predict.

    Args:
        columns: Columns of accuracies.
        name: The column, as the file names it. Default: the only column of distilled students, or
            else the only accuracy, error, other number from 0 to 100, or loss, in this order.

    Raises:
        UserError: The column does not exist, none is an accuracy, or several may be meant.
    """
    if name is not None:
        turned = (name, f"{_FROM_ERROR}{name}", f"{_FROM_LOSS}{name}", f"{name}{BESIDE_SCORE}")
        if found := next((each for each in turned if each in columns), None):
            return found
        raise unknown("target", name, columns)
    for fits in _ORDER:
        meant = [column for column, values in columns.items() if fits(column, values)]
        if len(meant) == 1:
            return meant[0]
        if meant:
            others = [each for each in columns if each not in meant and _plain(each, columns[each])]
            names = ", ".join([*meant, *others])
            raise UserError(f"several columns may be the accuracy; {_NAME_IT}: {names}")
    if columns:
        raise UserError(f"no column is clearly the accuracy; {_NAME_IT}: {', '.join(columns)}")
    raise UserError("the table has no column of accuracies")


def vanilla_column(target: str, columns: Mapping[str, object] | Sequence[str]) -> str | None:
    """Return the column of the same students trained alone, or None."""
    for distilled, alone in _VANILLA.items():
        name = target.removesuffix(distilled) + alone
        if target.endswith(distilled) and name in columns:
            return name
    return None


def turned_round(target: str) -> str | None:
    """Return a line that says how an error or a loss is ranked; None for an accuracy."""
    if target.startswith(_FROM_ERROR):
        name = target.removeprefix(_FROM_ERROR)
        return f"{name} is an error in percent: 100 - {name} is ranked"
    if target.startswith(_FROM_LOSS):
        name = target.removeprefix(_FROM_LOSS)
        return f"{name} is a loss: its negative is ranked"
    return None


def _words(name: str) -> set[str]:
    """Return the words of a name, in lower case: also of `testAcc`, and `acc1` beside `acc`."""
    parts = [*re.split(r"[\W_]+", name), *re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]
    plain = {part.casefold() for part in parts if part}
    return plain | {word.rstrip("0123456789") for word in plain}


def _is(name: str, words: set[str]) -> bool:
    return bool(_words(name) & words)


def _is_error(name: str) -> bool:
    drop = _is(name, _ACCURACY) and _is(name, _DROP)
    return drop or _is(name, _ERROR) or _REST.match(name) is not None


def _other(name: str) -> bool:
    """Say whether a name is that of no accuracy, error or loss."""
    if name.lower().startswith(_BEGINNINGS) or _is(name, _SPREAD):
        return True
    return _is(name, _OTHER) and not (_is(name, _ACCURACY | _LOSS) or _is_error(name))


def _distilled(name: str, values: Sequence[float]) -> bool:
    return name.endswith(tuple(_VANILLA)) or (_is(name, {"distilled"}) and _plain(name, values))


def _accuracy(name: str, values: Sequence[float]) -> bool:
    return _is(name, _ACCURACY) and not _turned(name) and not _is(name, _SECOND)


def _error(name: str, values: Sequence[float]) -> bool:
    return name.startswith(_FROM_ERROR) and not _is(name, _SECOND)


def _plain(name: str, values: Sequence[float]) -> bool:
    """Say whether numbers are from 0 to 100, and no name excludes them."""
    known = [v for v in values if not math.isnan(v)]
    inside = bool(known) and min(known) >= 0 and max(known) <= 100
    return inside and not _turned(name) and not _other(name)


def _counts_rows(values: Sequence[float | None]) -> bool:
    """Say whether a column counts the rows of the table, from 0 or 1."""
    return (
        len(values) > 2
        and values[0] in (0, 1)
        and list(values) == [values[0] + place for place in range(len(values))]
    )


def _loss(name: str, values: Sequence[float]) -> bool:
    return name.startswith(_FROM_LOSS) and not _is(name, _SECOND)


def _turned(name: str) -> bool:
    return name.startswith((_FROM_ERROR, _FROM_LOSS))


_ORDER = (_distilled, _accuracy, _error, _plain, _loss)

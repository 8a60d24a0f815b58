"""How trials ended, as a study keeps it; checked, for anybody may have written a journal."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from optuna.trial import FrozenTrial

from diswot.errors import UserError

END = "end"  # the user attribute of a trial
KINDS = ("reused", "scores", "rejected", "failed")

End = dict[str, Any]  # how a candidate ended; see `loop.Loop`


def recorded(trial: FrozenTrial, costs: Collection[str] = ()) -> End:
    """How a trial ended; empty if nothing is kept of that.

    Args:
        trial: Of a study.
        costs: Which must be there where there is a score.

    Raises:
        UserError: No search wrote it so.
    """
    end: End = trial.user_attrs.get(END, {})
    try:
        hash(tuple(trial.params.values()))
        if end == {} or (isinstance(end, dict) and _is_whole(end, costs)):
            return end
    except (AttributeError, KeyError, TypeError):
        pass
    raise UserError(f"trial {trial.number} of the study was not written by a search")


def _is_whole(end: End, costs: Collection[str]) -> bool:
    """Whether it has what each kind of end has; of an end of one kind alone."""
    found = [kind for kind in KINDS if kind in end]
    if len(found) != 1 or not _are_numbers(end.get("margins", {})):
        return False
    (kind,) = found
    if kind == "failed":
        return isinstance(end["failed"], str) and isinstance(end.get("kind", ""), str)
    if kind == "rejected":
        return _is_excess(**end["rejected"])
    scored = _is_number(end["score"]) and _are_numbers(end.get("costs", {}), costs)
    if kind == "reused":
        return scored and isinstance(end["reused"], int)
    return scored and isinstance(end["model_params"], int) and _are_scores(end["scores"])


def _is_excess(of: object, value: object, limit: object) -> bool:
    return isinstance(of, str) and _is_number(value) and _is_number(limit)


def _are_scores(value: Mapping[str, list[float]]) -> bool:
    return bool(value) and all(each and all(map(_is_number, each)) for each in value.values())


def _are_numbers(value: Mapping[str, float], names: Collection[str] = ()) -> bool:
    return value.keys() >= set(names) and all(map(_is_number, value.values()))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and value == value

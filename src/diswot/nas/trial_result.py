"""How a candidate ended: one record, written to and read from the attributes of its trial."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from optuna.trial import FrozenTrial, Trial

from diswot.costs.budget import Excess
from diswot.errors import UserError
from diswot.nas.aging_evolution import violation
from diswot.storage.compat import set_constraints

ATTRIBUTE = "end"  # name of the trial's user attribute
RAISED, MEMORY, NOT_FINITE = "error", "memory", "not finite"  # kinds, beside an executor's


@dataclass(frozen=True)
class TrialResult:
    """How a candidate ended: scored, a repeat of a scored one, outside the budget, or failed.

    Attributes:
        score: Mean over the repeats; None if the candidate has none.
        scores: By proxy, one number a repeat; empty for a repeated architecture.
        model_params: Parameters of a scored candidate.
        costs: By the names of `COSTS`, those that are limited or an objective.
        margins: By how much each limit that was checked is exceeded, as a share of the limit; zero
            or less is within.
        rejected: The limit that the candidate breaks, if there is one.
        reused: Number of the trial that scored the same architecture, if there is one.
        failed: Reason of a failure in one line; empty without a failure.
        kind: Kind of the failure: `error`, `memory`, `not finite`, `timeout` or `killed`.
    """

    score: float | None = None
    scores: Mapping[str, list[float]] = field(default_factory=dict)
    model_params: int | None = None
    costs: Mapping[str, float] = field(default_factory=dict)
    margins: Mapping[str, float] = field(default_factory=dict)
    rejected: Excess | None = None
    reused: int | None = None
    failed: str = ""
    kind: str = ""

    @property
    def outcome(self) -> str:
        """Return `scored`, `reused`, `rejected` or `failed`."""
        if self.rejected is not None:
            return "rejected"
        if self.score is None:
            return "failed"
        return "scored" if self.reused is None else "reused"

    @property
    def violation(self) -> tuple[int, float]:
        """Return how far the candidate is outside the budget, as `aging_evolution.violation`."""
        return violation(self.margins)

    def repeated(self, trial: int) -> TrialResult:
        """Return the result of the same architecture in a trial after the one with this number."""
        if self.score is None:
            return self
        first = trial if self.reused is None else self.reused
        return replace(self, scores={}, model_params=None, reused=first)

    def write(self, trial: Trial) -> None:
        """Write this result to its trial, and what Optuna's dashboard shows: constraints and sizes.

        Raises:
            UpdateFinishedTrialError: The trial has ended; nothing is written.
        """
        for name, margin in self.margins.items():
            trial.set_constraint(name, margin)
        if self.margins:
            set_constraints(trial, list(self.margins.values()))
        params = {} if self.model_params is None else {"params": self.model_params}
        for name, size in {**params, **self.costs}.items():
            trial.set_user_attr(name, size)
        trial.set_user_attr(ATTRIBUTE, self.as_attribute())

    def as_attribute(self) -> dict[str, Any]:
        """Return plain values for the trial's attribute, without what does not apply."""
        if self.outcome == "failed":
            return {"failed": self.failed, "kind": self.kind}
        if self.rejected is not None:
            return {"rejected": asdict(self.rejected), "margins": dict(self.margins)}
        plain = {"score": self.score, "costs": dict(self.costs), "margins": dict(self.margins)}
        if self.reused is not None:
            return {"reused": self.reused, **plain}
        scores = {name: list(values) for name, values in self.scores.items()}
        return {**plain, "scores": scores, "model_params": self.model_params}

    @classmethod
    def from_trial(cls, trial: FrozenTrial, costs: Collection[str] = ()) -> Self | None:
        """Read the result of a trial, with all `costs` if it is scored; None if it has none.

        Raises:
            UserError: The attribute was not written by a search.
        """
        held = trial.user_attrs.get(ATTRIBUTE, {})
        try:
            hash(tuple(trial.params.values()))
            result = None if held == {} else cls._parsed(held)
            if result is None or result.score is None or result.costs.keys() >= set(costs):
                return result
        except (AttributeError, KeyError, TypeError, ValueError):
            pass
        raise UserError(f"trial {trial.number} of the study was not written by a search")

    @classmethod
    def _parsed(cls, held: Any) -> Self:
        kinds = [name for name in ("reused", "scores", "rejected", "failed") if name in held]
        (kind,) = kinds
        if kind == "failed":
            return cls(failed=_text(held["failed"]), kind=_text(held.get("kind", RAISED)))
        margins = _numbers(held.get("margins", {}))
        if kind == "rejected":
            rejected = Excess(**held["rejected"])
            _text(rejected.of), _number(rejected.value), _number(rejected.limit)
            return cls(rejected=rejected, margins=margins)
        plain: dict[str, Any] = {"score": _number(held["score"]), "margins": margins}
        plain["costs"] = _numbers(held.get("costs", {}))
        if kind == "reused":
            return cls(**plain, reused=_whole(held["reused"]))
        scores = {name: [_number(v) for v in values] for name, values in held["scores"].items()}
        if not scores or not all(scores.values()):
            raise ValueError("no scores")
        return cls(**plain, scores=scores, model_params=_whole(held["model_params"]))


def _numbers(value: Mapping[str, object]) -> dict[str, float]:
    return {name: _number(each) for name, each in value.items()}


def _number(value: object) -> float:
    if not isinstance(value, int | float) or value != value:
        raise ValueError("not a number")
    return value


def _whole(value: object) -> int:
    if not isinstance(value, int):
        raise ValueError("not a whole number")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("not a text")
    return value

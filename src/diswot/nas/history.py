"""The history of a search: which architectures ended how, in a digest and a number each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import optuna
from optuna.trial import FrozenTrial

from diswot.nas.aging_evolution import Digest, digest
from diswot.nas.trial_result import TrialResult
from diswot.spaces.registry import Params
from diswot.storage.compat import storage_of, study_id
from diswot.storage.journal import trial_at


@dataclass(frozen=True)
class Entry:
    """The first trial of an architecture, and how it ended."""

    number: int
    params: Params
    result: TrialResult


class Scored(NamedTuple):
    """A scored architecture, in the order in which a search prefers them; the smallest is best."""

    loss: float
    model_params: int
    trial: int
    costs: tuple[float, ...]


class History:
    """What has ended in a study, counted; the results themselves stay in the study.

    Attributes:
        outcomes: Number of trials by outcome.
        reasons: Number of failed trials by reason.
        kinds: Number of failed trials by kind.
        best: Highest score so far.
        nearest: Smallest violation of the budget among rejected trials, and its trial.
    """

    def __init__(self, study: optuna.Study) -> None:
        self.study = study
        self.outcomes: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.best: float | None = None
        self.nearest: tuple[tuple[int, float], int] | None = None
        self._first: dict[Digest, int] = {}

    def add(self, params: Params, number: int, result: TrialResult) -> bool:
        """Take in a trial that has ended.

        Returns:
            Whether the search came forward: the candidate is within the budget and new, or nearer
            to the budget than all before.
        """
        before = len(self)
        self._first.setdefault(digest(params), number)
        self.outcomes[result.outcome] += 1
        if result.rejected is not None:
            nearer = self.nearest is None or result.violation < self.nearest[0]
            if nearer:
                self.nearest = result.violation, number
            return nearer
        if result.score is None:
            self.reasons[result.failed] += 1
            self.kinds[result.kind] += 1
        else:
            self.best = result.score if self.best is None else max(self.best, result.score)
        return len(self) > before

    def find(self, params: Params) -> Entry | None:
        """Return the first trial of an architecture, if it has ended."""
        number = self._first.get(digest(params))
        return None if number is None else self.entry(number)

    def entry(self, number: int) -> Entry:
        """Return a trial that has ended, by its number."""
        return _entry(trial_at(storage_of(self.study), study_id(self.study), number))

    @property
    def within(self) -> int:
        """Number of trials within the budget."""
        return self.outcomes.total() - self.outcomes["rejected"]

    def __len__(self) -> int:
        """Number of different architectures."""
        return len(self._first)

    def __iter__(self) -> Iterator[Entry]:
        """Yield the first trial of each architecture, in the order in which they ended."""
        trials = self.study.get_trials(deepcopy=False)
        return (_entry(trials[number]) for number in self._first.values())

    def scored(self, costs: Sequence[str]) -> Iterator[Scored]:
        """Yield the scored architectures, each with some costs by name."""
        for each in self:
            result = each.result
            if result.outcome == "scored":
                assert result.score is not None and result.model_params is not None
                values = tuple(result.costs[name] for name in costs)
                yield Scored(-result.score, result.model_params, each.number, values)


def _entry(trial: FrozenTrial) -> Entry:
    result = TrialResult.from_trial(trial)
    assert result is not None
    return Entry(trial.number, dict(trial.params), result)

"""The history of a search: which architectures ended how, in a digest and a number each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import optuna
from optuna.trial import FrozenTrial

from diswot.nas.aging_evolution import Digest, digest
from diswot.nas.trial_result import TrialResult
from diswot.spaces.registry import Params
from diswot.storage.compat import storage_of, study_id
from diswot.storage.journal import trial_at


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

    def repeat(self, params: Params) -> TrialResult | None:
        """Return the result of a trial that repeats an architecture; None for an unknown one."""
        first = self._first.get(digest(params))
        return None if first is None else self.ended(first)[1].repeated(first)

    def ended(self, number: int) -> tuple[FrozenTrial, TrialResult]:
        """Return a trial that has ended, and its result."""
        return _ended(trial_at(storage_of(self.study), study_id(self.study), number))

    def __contains__(self, params: Params) -> bool:
        """Return whether an architecture has ended."""
        return digest(params) in self._first

    @property
    def within(self) -> int:
        """Number of trials within the budget."""
        return self.outcomes.total() - self.outcomes["rejected"]

    def __len__(self) -> int:
        """Number of different architectures."""
        return len(self._first)

    def __iter__(self) -> Iterator[tuple[FrozenTrial, TrialResult]]:
        """Yield the first trial of each architecture with its result, in the order of their ends.

        The trials are not copied: do not change them.
        """
        trials = self.study.get_trials(deepcopy=False)
        return (_ended(trials[number]) for number in self._first.values())


def _ended(trial: FrozenTrial) -> tuple[FrozenTrial, TrialResult]:
    result = TrialResult.from_trial(trial)
    assert result is not None
    return trial, result

"""How each architecture ended first: a digest and a number in memory, the rest in the study."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import optuna
from optuna.trial import FrozenTrial

from diswot.nas.aging_evolution import Digest, Key, digest, key
from diswot.nas.trial_result import END, End
from diswot.storage.journal import trial_at


class Scored(NamedTuple):
    """What a search compares students by; the smallest is the best."""

    loss: float
    model_params: int
    trial: int
    costs: tuple[float, ...]


class Firsts:
    """By architecture, how its first trial ended, with its `params` and `trial`.

    Args:
        study: Has the trials, each with its end.
    """

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        self._numbers: dict[Digest, int] = {}

    def add(self, chosen: Key, number: int) -> None:
        """Take the number of a trial that has an end, unless the architecture has one already."""
        self._numbers.setdefault(digest(chosen), number)

    def __contains__(self, chosen: Key) -> bool:
        return digest(chosen) in self._numbers

    def __iter__(self) -> Iterator[Key]:
        return (key(end["params"]) for end in self.values())

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, chosen: Key) -> End:
        return self.of(self._numbers[digest(chosen)])

    def of(self, number: int) -> End:
        """How a trial ended."""
        return _told(trial_at(self._study._storage, self._study._study_id, number))

    def values(self) -> Iterator[End]:
        """How each architecture ended, in the order in which they did; read as it goes on."""
        trials = self._study.get_trials(deepcopy=False)
        return (_told(trials[number]) for number in self._numbers.values())

    def scored(self, costs: Sequence[str]) -> Iterator[Scored]:
        """The architectures that were scored, with these costs."""
        for end in self.values():
            if "scores" in end:
                its = tuple(end["costs"][name] for name in costs)
                yield Scored(-end["score"], end["model_params"], end["trial"], its)


def _told(trial: FrozenTrial) -> End:
    return {**trial.user_attrs[END], "trial": trial.number, "params": dict(trial.params)}

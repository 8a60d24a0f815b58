"""Samplers by name, each a function of a seed and the history alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from diswot.models.initialization import derive_seed
from diswot.nas.aging_evolution import AgingEvolutionSampler

T = TypeVar("T")


class _Opened(BaseSampler, Generic[T]):
    """A sampler that holds one object a trial while the trial is open.

    Args:
        make: Makes the object of a trial, given its number.
    """

    def __init__(self, make: Callable[[int], T]) -> None:
        self._make = make
        self._open: dict[int, T] = {}

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Make the object of this trial."""
        self._open[trial.number] = self._make(trial.number)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Drop the object of this trial."""
        self._open.pop(trial.number, None)


class PerTrial(_Opened[BaseSampler]):
    """An Optuna sampler made anew for each trial, with a seed drawn from (seed, trial number).

    A proposal depends on the seed and the history alone, so a resumed search proposes what an
    uninterrupted one would. Optuna's sampler itself would begin again with its first proposals.

    Args:
        make: Makes the sampler from a seed.
        seed: Seed of all proposals.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        derive_seed(seed)
        super().__init__(lambda number: make(derive_seed(seed, number) % 2**32))

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Ask the sampler of this trial."""
        return self._open[trial.number].infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Ask the sampler of this trial."""
        return self._open[trial.number].sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Ask the sampler of this trial."""
        own = self._open[trial.number]
        return own.sample_independent(study, trial, param_name, param_distribution)


class Listed(_Opened[dict[str, Any]]):
    """A sampler that proposes given architectures, one a trial.

    Args:
        left: Architectures to propose; each trial takes one from the left.
    """

    def __init__(self, left: deque[dict[str, Any]]) -> None:
        super().__init__(lambda number: left.popleft())

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return nothing: all values are given one by one."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return nothing: all values are given one by one."""
        return {}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Return the given value."""
        return self._open[trial.number][param_name]


SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "evolution": lambda seed: AgingEvolutionSampler(seed=seed),
    "random": lambda seed: PerTrial(lambda own: RandomSampler(seed=own), seed),
    "tpe": lambda seed: PerTrial(lambda own: TPESampler(seed=own), seed),
    "nsga2": lambda seed: PerTrial(lambda own: NSGAIISampler(seed=own, population_size=20), seed),
}

"""Samplers by name, and how they keep to a seed, or to a given architecture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from diswot.evolution import AgingEvolutionSampler
from diswot.initialise import derive_seed


class PerTrial(BaseSampler):
    """An Optuna sampler made anew for each trial, with a seed drawn from (seed, trial number).

    So a proposal depends on the seed and the history alone: a resumed search goes on, where the
    sampler itself would propose again what it proposed before the search was stopped.

    Args:
        make: The sampler from its seed.
        seed: The user's seed.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self._make = make
        self._seed = seed
        self._now = self._at(0)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Make the sampler of this trial."""
        self._now = self._at(trial.number)

    def _at(self, number: int) -> BaseSampler:
        return self._make(derive_seed(self._seed, number) % 2**32)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Ask the sampler of this trial."""
        return self._now.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Ask the sampler of this trial."""
        return self._now.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Ask the sampler of this trial."""
        return self._now.sample_independent(study, trial, param_name, param_distribution)


class Listed(BaseSampler):
    """Proposes one given architecture."""

    def __init__(self, params: dict[str, Any]) -> None:
        self._params = params

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Nothing is sampled before it is asked for."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing is sampled before it is asked for."""
        return {}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """The given value."""
        return self._params[param_name]


SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "evolution": lambda seed: AgingEvolutionSampler(seed=seed),
    "random": lambda seed: PerTrial(lambda own: RandomSampler(seed=own), seed),
    "tpe": lambda seed: PerTrial(lambda own: TPESampler(seed=own), seed),
    "nsga2": lambda seed: PerTrial(lambda own: NSGAIISampler(seed=own, population_size=20), seed),
}

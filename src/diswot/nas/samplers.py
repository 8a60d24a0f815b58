"""Samplers by name, each a function of a seed and the history alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from diswot.errors import UserError, unknown
from diswot.models.initialization import derive_seed
from diswot.nas.aging_evolution import AgingEvolutionSampler
from diswot.utils import user_code


class PerTrial(BaseSampler):
    """An Optuna sampler made anew for each trial, with a seed drawn from (seed, trial number).

    A proposal depends on the seed and the history alone, so a resumed search proposes what an
    uninterrupted one would. Optuna's sampler itself would begin again with its first proposals.

    Args:
        make: Makes the sampler from a seed.
        seed: Seed of all proposals.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        derive_seed(seed)
        self._make, self._seed = make, seed
        self._open: dict[int, BaseSampler] = {}

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Make the sampler of this trial."""
        self._open[trial.number] = self._make(derive_seed(self._seed, trial.number) % 2**32)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Drop the sampler of this trial."""
        self._open.pop(trial.number, None)

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


class _Given(RandomSampler):
    """A sampler of one architecture, whose values are given one by one."""

    def __init__(self, params: dict[str, Any]) -> None:
        super().__init__()
        self._params = params

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self._params[param_name]


def listed(left: deque[dict[str, Any]]) -> BaseSampler:
    """Return a sampler whose trials each take an architecture from the left of a list."""
    return PerTrial(lambda seed: _Given(left.popleft()), 0)


SamplerLike = str | BaseSampler | Callable[..., BaseSampler]


class SamplerRow(NamedTuple):
    """A row of the table of samplers: a function of a seed, what it does, and its paper."""

    make: Callable[[int], BaseSampler]
    summary: str
    paper: str = ""


SAMPLERS = {
    "evolution": SamplerRow(
        lambda seed: AgingEvolutionSampler(seed=seed),
        "mutants of tournament winners replace the oldest",
        "Real et al., AAAI 2019",
    ),
    "random": SamplerRow(
        lambda seed: PerTrial(lambda own: RandomSampler(seed=own), seed), "independent draws"
    ),
    "tpe": SamplerRow(
        lambda seed: PerTrial(lambda own: TPESampler(seed=own), seed),
        "samples from a density model of good students",
        "Bergstra et al., NeurIPS 2011",
    ),
    "nsga2": SamplerRow(
        lambda seed: PerTrial(lambda own: NSGAIISampler(seed=own, population_size=20), seed),
        "a genetic algorithm for several objectives",
        "Deb et al., 2002",
    ),
}


def create_sampler(name: SamplerLike, seed: int) -> BaseSampler:
    """Return a sampler of architectures.

    Args:
        name: A key of `SAMPLERS`; `file.py:function` or `package.module:function`; a function that
            returns an Optuna sampler and may take `seed`; or a sampler. A sampler of the user is
            made once, so that a resumed search begins anew with the generator of the sampler.
        seed: Seed of all proposals.

    Raises:
        UserError: The name is unknown, or the function fails or returns something else.
    """
    if isinstance(name, BaseSampler):
        return name
    if isinstance(name, str) and name in SAMPLERS:
        return SAMPLERS[name].make(seed)
    if isinstance(name, str) and not user_code.is_spec(name):
        raise unknown("sampler", name, SAMPLERS)
    said = user_code.name_of(name)
    function = user_code.find(name) if isinstance(name, str) else name
    made = user_code.call(said, user_code.bind(function, seed=seed))
    if not isinstance(made, BaseSampler):
        raise UserError(f"{said} must return an Optuna sampler, not a {type(made).__name__}")
    return made

"""Aging evolution (Real et al., AAAI 2019) as an Optuna sampler."""

from __future__ import annotations

import zlib
from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from diswot.spaces.choices import draw, size

Params = dict[str, Any]
Key = frozenset[tuple[str, Any]]

RETRIES = 100


def key(params: Mapping[str, Any]) -> Key:
    """What makes two architectures the same: their parameters, in any order."""
    return frozenset(params.items())


def random_child(
    space: Mapping[str, BaseDistribution], known: Container[Key], random: np.random.Generator
) -> Params:
    """Random values for a space; unknown ones if that succeeds within `RETRIES` draws."""
    for _ in range(RETRIES):
        child = {name: draw(distribution, random) for name, distribution in space.items()}
        if key(child) not in known:
            break
    return child


def mutated_child(
    parent: Params,
    space: Mapping[str, BaseDistribution],
    known: Container[Key],
    random: np.random.Generator,
) -> Params:
    """The parent with one choice changed; while the child is known, with one more, to `RETRIES`."""
    child = dict(parent)
    names = [name for name in parent if name in space and size(space[name]) > 1]
    for _ in range(RETRIES if names else 0):
        name = names[random.integers(len(names))]
        before = child[name]
        while child[name] == before:
            child[name] = draw(space[name], random)
        if child != parent and key(child) not in known:
            break
    return child


def winner(
    population: Sequence[FrozenTrial], tournament: int, sign: int, random: np.random.Generator
) -> FrozenTrial:
    """The best of `tournament` members drawn without replacement."""
    count = min(tournament, len(population))
    drawn = random.choice(len(population), size=count, replace=False)
    return max((population[i] for i in drawn), key=lambda trial: sign * trial.value)


class AgingEvolutionSampler(BaseSampler):
    """Random distinct architectures fill a population; then children of tournament winners.

    The population is the last `population` scored trials, so the oldest dies. A child differs
    from its parent in one choice, or in more where that one is known already. Trials that were
    pruned (outside the budget) or failed are known but are no parents. Choices that appear only
    under other choices are drawn at random when they appear.

    A proposal depends on (seed, trial number) and the history alone; nothing is kept in between.

    Args:
        population: Number of living members.
        tournament: Members that compete to become the parent.
        seed: Of all proposals.
    """

    def __init__(self, *, population: int = 20, tournament: int = 5, seed: int = 0) -> None:
        if population < 1 or tournament < 1:
            raise ValueError("population and tournament must be at least 1")
        self._population = population
        self._tournament = tournament
        self._seed = seed

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The distributions that the latest trials met."""
        trials = study.get_trials(deepcopy=False)[-self._population - 1 :]
        return {name: d for t in trials for name, d in t.distributions.items()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> Params:
        """The next architecture, as far as its choices are known beforehand."""
        if not search_space:
            return {}
        trials = study.get_trials(deepcopy=False)
        known = {key(t.params) for t in trials if t.number != trial.number}
        scored = [t for t in trials if t.state == TrialState.COMPLETE]
        random = np.random.default_rng((self._seed, trial.number))
        if len(scored) < self._population:
            return random_child(search_space, known, random)
        sign = 1 if study.direction == StudyDirection.MAXIMIZE else -1
        parent = winner(scored[-self._population :], self._tournament, sign, random)
        return mutated_child(parent.params, search_space, known, random)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A random value for a choice that nothing before it foretold."""
        place = zlib.crc32(param_name.encode())
        return draw(param_distribution, np.random.default_rng((self._seed, trial.number, place)))

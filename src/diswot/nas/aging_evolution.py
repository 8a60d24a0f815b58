"""Aging evolution (Real et al., AAAI 2019) as an Optuna sampler."""

from __future__ import annotations

import math
import zlib
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from hashlib import blake2b
from itertools import takewhile
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from diswot.errors import UserError
from diswot.spaces.trials import choice, draw, size
from diswot.storage.compat import storage_of, study_id
from diswot.storage.journal import trials_from

Params = dict[str, Any]
Digest = bytes

RETRIES = 100  # random children before an unknown architecture is looked for one by one
PATIENCE = 10  # known children before one parameter more is changed
MAX_SCAN = 20_000  # architectures of the largest space that is looked through one by one

_BUILT = (TrialState.COMPLETE, TrialState.PRUNED)


def digest(params: Mapping[str, Any]) -> Digest:
    """Return the identity of an architecture in 16 bytes: its parameters in any order.

    Two of a billion architectures collide with a probability of 10^-21.
    """
    named = [(name, _number(params[name])) for name in sorted(params)]
    return blake2b(repr(named).encode(), digest_size=16).digest()


def _number(value: Any) -> Any:
    """Return equal numbers (1, 1.0, True) in one form; any other value unchanged."""
    if isinstance(value, float) and not value.is_integer():
        return float(value)
    return int(value) if isinstance(value, bool | float) else value


def violation(constraints: Mapping[str, float]) -> tuple[int, float]:
    """Return how far a candidate is outside its constraints, for comparing; smaller is nearer.

    A candidate that keeps more constraints is nearer: they are checked in one order, up to the
    first that is broken. Of equal ones the smaller excess is nearer. Constrained domination, Deb
    et al. 2002 (NSGA-II), section VI.

    Args:
        constraints: Excess over each limit that was checked; zero or less is within.
    """
    values = constraints.values()
    return -sum(value <= 0 for value in values), math.fsum(value for value in values if value > 0)


class Past:
    """Facts about trials, each read once, and whether a proposal is a known architecture.

    A proposal has a value for every parameter of a space. Where parameters appear only under
    others, an architecture has only some of them. Then the values of these decide.

    Attributes:
        taken: Number of trials read.
        shapes: Sets of parameter names that built architectures have.
        distributions: Latest distribution of each parameter.
        living: The last scored trials, as many as the population.
        nearest: Trials outside the budget, the nearest first, at most as many as the population.
    """

    def __init__(self, population: int) -> None:
        self.taken = 0
        self.population = population
        self.nearest: list[FrozenTrial] = []
        self.shapes: set[frozenset[str]] = set()
        self.distributions: dict[str, BaseDistribution] = {}
        self.living: deque[FrozenTrial] = deque(maxlen=population)
        self._keys: list[set[Digest]] = [set()]  # digests of the architectures

    def take(self, trial: FrozenTrial) -> None:
        """Read the next trial."""
        self.taken += 1
        self._keys[-1].add(digest(trial.params))
        if trial.state in _BUILT:
            self.shapes.add(frozenset(trial.params))
        self.distributions.update(trial.distributions)
        if trial.state == TrialState.COMPLETE:
            self.living.append(trial)
        elif trial.state == TrialState.PRUNED:
            self.nearest = nearest([*self.nearest, trial], self.population)

    def followed_by(self, trials: Iterable[FrozenTrial]) -> Past:
        """Return the facts about these trials and more, which may be read again later."""
        both = copy(self)
        both.shapes, both.distributions = set(self.shapes), dict(self.distributions)
        both.living, both._keys = copy(self.living), [*self._keys, set()]
        for trial in trials:
            both.take(trial)
        return both

    def __contains__(self, proposal: Params) -> bool:
        met = (shape for shape in self.shapes if shape <= proposal.keys())
        shapes = {frozenset(proposal), *met}
        proposed = [digest({name: proposal[name] for name in shape}) for shape in shapes]
        return any(one in keys for one in proposed for keys in self._keys)


def nearest(trials: Iterable[FrozenTrial], count: int) -> list[FrozenTrial]:
    """Return the trials that are least outside their constraints, one an architecture."""
    first = {digest(trial.params): trial for trial in reversed(list(trials))}
    ranked = sorted(first.values(), key=lambda each: (violation(each.constraints), each.number))
    return ranked[:count]


def random_child(
    space: Mapping[str, BaseDistribution], known: Past, random: np.random.Generator
) -> Params:
    """Draw random values for a space: an unknown architecture, if there is one."""
    for _ in range(RETRIES):
        child = {name: draw(distribution, random) for name, distribution in space.items()}
        if child not in known:
            return child
    return _unknown(space, known, random) or child


def mutated_child(
    parent: Params,
    space: Mapping[str, BaseDistribution],
    known: Past,
    random: np.random.Generator,
) -> Params:
    """Change one parameter of the parent: an unknown architecture, if there is one.

    After every `PATIENCE` known children, one parameter more is changed. Parameters that the
    parent does not have get random values.
    """
    names = [name for name in parent if name in space and size(space[name]) > 1]
    child = {name: parent.get(name, draw(d, random)) for name, d in space.items()}
    for retry in range(RETRIES if names else 0):
        child |= {name: parent[name] for name in names}
        for _ in range(1 + retry // PATIENCE):
            name = names[random.integers(len(names))]
            child[name] = _changed(child[name], space[name], random)
        if child not in known:
            return child
    return _unknown(space, known, random) or child


def _changed(value: Any, distribution: BaseDistribution, random: np.random.Generator) -> Any:
    """Draw another value, each equally likely; the same value if there is no other."""
    drawn = (draw(distribution, random) for _ in range(RETRIES))
    return next((other for other in drawn if other != value), value)


def _unknown(
    space: Mapping[str, BaseDistribution], known: Past, random: np.random.Generator
) -> Params | None:
    """Find any unknown architecture; None if there is none, or the space is too large."""
    sizes = [size(distribution) for distribution in space.values()]
    count = math.prod(sizes)
    for index in random.permutation(int(count)) if count <= MAX_SCAN else ():
        digits = np.unravel_index(index, [int(n) for n in sizes])
        child = {n: choice(d, int(i)) for (n, d), i in zip(space.items(), digits, strict=True)}
        if child not in known:
            return child
    return None


def winner(
    population: Sequence[FrozenTrial], tournament: int, sign: int, random: np.random.Generator
) -> FrozenTrial:
    """Return the best of `tournament` members drawn without replacement.

    A scored member is better than one outside the budget, and of two of these the nearer is.
    """

    def merit(trial: FrozenTrial) -> tuple[float, ...]:
        if trial.state == TrialState.COMPLETE:
            return math.inf, math.inf, sign * (trial.value or 0.0)
        kept, excess = violation(trial.constraints)
        return -kept, -excess, 0.0

    count = min(tournament, len(population))
    drawn = random.choice(len(population), size=count, replace=False)
    best: FrozenTrial = max((population[i] for i in drawn), key=merit)
    return best


class AgingEvolutionSampler(BaseSampler):
    """Random distinct architectures fill a population; then children of tournament winners.

    The population is the last `population` scored trials, so the oldest dies. A child differs
    from its parent in one choice, or in more where such children are known. Until the population
    is full, and after as many proposals as it has members, trials outside the budget (pruned ones)
    take the free places, the nearest first: so the search evolves towards the budget. Failed
    trials are no parents. Choices that appear only under other choices are drawn at random when
    they appear. A known architecture is proposed again only when no other is found.

    A proposal depends on (seed, trial number) and the history alone. The facts that are kept in
    between make the cost of a proposal independent of the number of trials.

    Args:
        population: Number of members.
        tournament: Members that compete to become the parent.
        seed: Seed of all proposals.

    Raises:
        UserError: A number is too small.
    """

    def __init__(self, *, population: int = 20, tournament: int = 5, seed: int = 0) -> None:
        if population < 1 or tournament < 1:
            raise UserError("population and tournament must be at least 1")
        if seed < 0:
            raise UserError(f"a seed must not be below zero, as {seed} is")
        self._population = population
        self._tournament = tournament
        self._seed = seed
        self._past = Past(population)
        self._of: tuple[Any, int] | None = None

    def _history(self, study: Study) -> tuple[Past, list[FrozenTrial]]:
        """Return the ended trials up to the first open one, and the trials from that one on."""
        of = storage_of(study), study_id(study)
        if of != self._of:
            self._past, self._of = Past(self._population), of
        trials = trials_from(*of, self._past.taken)
        ended = list(takewhile(lambda trial: trial.state.is_finished(), trials))
        for trial in ended:
            self._past.take(trial)
        return self._past, trials[len(ended) :]

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the latest distribution of each parameter in the trials so far."""
        past, recent = self._history(study)
        return past.followed_by(recent).distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> Params:
        """Propose the next architecture, as far as its parameters are known beforehand."""
        if not search_space:
            return {}
        ended, recent = self._history(study)
        past = ended.followed_by(each for each in recent if each.number != trial.number)
        members = [*past.living]
        random = np.random.default_rng((self._seed, trial.number))
        if (free := self._population - len(members)) > 0:
            if not past.nearest or past.taken < self._population:
                return random_child(search_space, past, random)
            members += past.nearest[:free]
        sign = 1 if study.direction == StudyDirection.MAXIMIZE else -1
        parent = winner(members, self._tournament, sign, random)
        return mutated_child(parent.params, search_space, past, random)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draw a random value for a parameter that no earlier trial has."""
        place = zlib.crc32(param_name.encode())
        return draw(param_distribution, np.random.default_rng((self._seed, trial.number, place)))

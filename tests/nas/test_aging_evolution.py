from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
import toyspaces
from hypothesis import given, settings
from hypothesis import strategies as some
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import BaseTrial, FrozenTrial, TrialState, create_trial

from diswot.errors import UserError
from diswot.nas.aging_evolution import (
    AgingEvolutionSampler,
    Past,
    digest,
    mutated_child,
    random_child,
    winner,
)

Params = dict[str, Any]
Tell = Callable[[int], tuple[float | None, TrialState]]


def wide(trial: BaseTrial) -> None:
    """5^6 architectures."""
    for i in range(6):
        trial.suggest_categorical(f"edge{i}", list("abcde"))


def narrow(trial: BaseTrial) -> None:
    """24 architectures."""
    trial.suggest_int("depth", 2, 8, step=2)
    trial.suggest_categorical("norm", [None, True, "batch"])
    trial.suggest_float("scale", 0.1, 0.2, step=0.1)


def mixed(trial: BaseTrial) -> None:
    trial.suggest_float("linear", -1.0, 2.0)
    trial.suggest_float("log", 1e-5, 1e-1, log=True)
    trial.suggest_float("step", 0.0, 0.3, step=0.1)
    trial.suggest_int("int", -3, 9, step=3)
    trial.suggest_int("logint", 1, 1000, log=True)
    trial.suggest_categorical("kind", [None, False, 2, 0.5, "x"])
    trial.suggest_int("only", 7, 7)


def started(direction: str = "maximize", **options: int) -> optuna.Study:
    return optuna.create_study(sampler=AgingEvolutionSampler(**options), direction=direction)


def run(
    study: optuna.Study,
    space: Callable[[BaseTrial], object],
    trials: int,
    tell: Tell = lambda number: (float(number), TrialState.COMPLETE),
) -> list[Params]:
    for _ in range(trials):
        trial = study.ask()
        space(trial)
        value, state = tell(trial.number)
        study.tell(trial, value, state=state)
    return [trial.params for trial in study.trials]


def differences(one: Params, other: Params) -> int:
    return sum(one.get(name) != other.get(name) for name in one.keys() | other.keys())


def distinct(proposals: list[Params]) -> int:
    return len({digest(params) for params in proposals})


def history(*trials: tuple[Params, float]) -> list[FrozenTrial]:
    choices = CategoricalDistribution(list("ab"))
    return [
        create_trial(params=p, distributions=dict.fromkeys(p, choices), value=value)
        for p, value in trials
    ]


def numbered(values: list[float]) -> list[FrozenTrial]:
    return [create_trial(value=value) for value in values]


VALUES = (
    some.none() | some.booleans() | some.integers() | some.floats(allow_nan=False) | some.text()
)
SMALL = some.sampled_from(
    [None, False, True, -2, -1, 0, 1, 2, -1.0, -0.0, 1.0, 0.5, "1", "None", ""]
)
PARAMS = some.dictionaries(some.sampled_from("abc"), VALUES | SMALL, max_size=3)


@settings(deadline=None)
@given(PARAMS, PARAMS)
def test_digest_is_the_same_exactly_where_the_parameters_are(one: Params, other: Params) -> None:
    assert (digest(one) == digest(other)) == (one == other)
    assert digest(one) == digest(dict(reversed(one.items())))
    assert len(digest(one)) == 16


def test_digest_of_numpys_numbers_is_that_of_pythons() -> None:
    numpys = {"a": np.float64(0.1), "b": np.float64(2)}
    assert digest(numpys) == digest({"a": 0.1, "b": 2})


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("space", "size"), [(narrow, 24), (toyspaces.branching, 14), (wide, 60)])
def test_population_fills_with_distinct_individuals(
    space: Callable[[BaseTrial], object], size: int, seed: int
) -> None:
    assert distinct(run(started(population=60, seed=seed), space, size)) == size


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("space", "size"), [(narrow, 24), (toyspaces.branching, 14)])
def test_no_known_child_while_there_are_others(
    space: Callable[[BaseTrial], object], size: int, seed: int
) -> None:
    study = started(population=3, tournament=2, seed=seed)

    assert distinct(run(study, space, size)) == size
    assert distinct(run(study, space, 5)) == size  # nothing is left, and it goes on


def test_pruned_failed_and_running_ones_are_known() -> None:
    states = itertools.cycle((TrialState.PRUNED, TrialState.FAIL, TrialState.COMPLETE))
    tells = {n: (1.0 if s == TrialState.COMPLETE else None, s) for n, s in zip(range(24), states)}  # noqa: B905
    study = started(population=3, seed=1)
    waiting = toyspaces.suggestions(narrow, study)

    proposals = run(study, narrow, 23, lambda number: tells[number])

    assert distinct(proposals) == 24
    assert waiting not in proposals[1:]


def test_winner_is_the_best_of_its_sample() -> None:
    values = np.random.default_rng(0).normal(size=12).tolist()
    population = numbered(values)
    for seed, count, sign in itertools.product(range(20), (1, 4, 12, 30), (1, -1)):
        drawn = np.random.default_rng(seed).choice(12, size=min(count, 12), replace=False)
        best = max(sign * values[i] for i in drawn)

        chosen = winner(population, count, sign, np.random.default_rng(seed))

        assert sign * chosen.value == best


def test_tournament_of_one_picks_anyone() -> None:
    random, population = np.random.default_rng(0), numbered([3.0, 1.0, 2.0])

    assert {winner(population, 1, 1, random).value for _ in range(50)} == {1.0, 2.0, 3.0}


def test_child_differs_from_a_living_parent_in_one_choice() -> None:
    proposals = run(started(population=10, tournament=3, seed=2), wide, 60)

    for number in range(10, 60):
        living = proposals[number - 10 : number]
        assert min(differences(proposals[number], parent) for parent in living) == 1


@pytest.mark.parametrize(("direction", "sign"), [("maximize", -1), ("minimize", 1)])
def test_oldest_dies(direction: str, sign: int) -> None:
    """The older the better, and all compete: the parent is the oldest that lives."""
    study = started(direction, population=5, tournament=5, seed=3)

    proposals = run(study, wide, 40, lambda number: (sign * number, TrialState.COMPLETE))

    for number in range(5, 40):
        assert differences(proposals[number], proposals[number - 5]) == 1


@pytest.mark.parametrize("state", [TrialState.PRUNED, TrialState.FAIL])
def test_only_scored_trials_are_parents(state: TrialState) -> None:
    def tell(number: int) -> tuple[float | None, TrialState]:
        return (None, state) if number % 3 else (-float(number), TrialState.COMPLETE)

    proposals = run(started(population=4, tournament=4, seed=4), wide, 60, tell)

    for number in range(12, 60):
        scored = range(0, number, 3)
        assert differences(proposals[number], proposals[scored[-4]]) == 1


def test_proposals_asked_for_at_once_differ() -> None:
    study = started(population=4, seed=5)
    run(study, wide, 8)
    space = study.sampler.infer_relative_search_space(study, study.trials[-1])
    proposals = []
    for number in range(8, 14):
        trial = copy.copy(study.trials[-1])
        trial.number = number
        proposals.append(study.sampler.sample_relative(study, trial, space))

    assert distinct(proposals) == 6


@pytest.mark.parametrize("space", [wide, narrow, mixed, toyspaces.branching])
def test_proposals_depend_on_seed_number_and_history_alone(
    space: Callable[[BaseTrial], object],
) -> None:
    study = started(population=4, seed=5)
    proposals = run(study, space, 12)
    for number in (0, 1, 5, 11):
        other = started(population=4, seed=5)
        other.add_trials(study.trials[:number])
        assert toyspaces.suggestions(space, other) == proposals[number]

    assert run(started(population=4, seed=5), space, 12) == proposals
    assert run(started(population=4, seed=6), space, 12) != proposals


def test_every_kind_of_choice_stays_inside() -> None:
    study = started(population=5, tournament=2, seed=6)
    proposals = run(study, mixed, 60)
    for trial in study.trials:
        for name, distribution in trial.distributions.items():
            assert distribution._contains(distribution.to_internal_repr(trial.params[name]))
        assert {name: type(value) for name, value in trial.params.items() if name != "kind"} == {
            "linear": float,
            "log": float,
            "step": float,
            "int": int,
            "logint": int,
            "only": int,
        }
    for name in proposals[0]:
        assert len({params[name] for params in proposals}) > 3 or name == "only"
    assert 1e-4 < math.exp(np.mean([math.log(params["log"]) for params in proposals])) < 1e-2


def test_parent_may_hold_choices_that_no_recent_trial_met() -> None:
    """The parents have branches; all newer trials, outside the budget, have none."""
    study = started(population=2, tournament=2, seed=7)
    for params, value in (({"depth": 3, "width0": 2, "width1": 4, "width2": 2}, 1.0),) * 2 + (
        ({"depth": 1, "width0": 2}, None),
    ) * 9:
        study.enqueue_trial(params)
        trial = study.ask()
        toyspaces.branching(trial)
        state = TrialState.PRUNED if value is None else TrialState.COMPLETE
        study.tell(trial, value, state=state)

    for _ in range(10):
        params = toyspaces.suggestions(toyspaces.branching, study)
        assert params["depth"] == 3 or len(params) == params["depth"] + 1


def test_range_of_a_choice_may_depend_on_another() -> None:
    def space(trial: BaseTrial) -> None:
        trial.suggest_int("heads", 1, trial.suggest_int("width", 1, 5))

    study = started(population=4, seed=8)

    for params in run(study, space, 40):
        assert 1 <= params["heads"] <= params["width"]


@pytest.mark.parametrize(
    "space",
    [
        lambda trial: None,
        lambda trial: trial.suggest_int("a", 3, 3),
        lambda trial: trial.suggest_categorical("a", ["same", "same"]),
        lambda trial: trial.suggest_categorical("a", [1, True, 1.0]),
    ],
)
def test_space_of_one_architecture_is_no_endless_search(
    space: Callable[[BaseTrial], object],
) -> None:
    assert distinct(run(started(population=2, seed=9), space, 6)) == 1


def test_proposal_is_known_by_the_choices_that_an_architecture_met() -> None:
    known = Past(20).followed_by(history(({"x": "a"}, 1.0), ({"x": "b", "y": "a"}, 2.0)))

    assert {"x": "a", "y": "a"} in known
    assert {"x": "a", "y": "b"} in known
    assert {"x": "b", "y": "a"} in known
    assert {"x": "b", "y": "b"} not in known


def test_what_follows_is_known_to_the_copy_alone() -> None:
    """So that open trials are read again when they have ended."""
    first, second = history(({"x": "a"}, 1.0), ({"x": "b"}, 2.0))
    past = Past(2).followed_by([first])
    both = past.followed_by([second])

    assert {"x": "b"} in both and {"x": "a"} in both and [*both.living] == [first, second]
    assert {"x": "b"} not in past and [*past.living] == [first]
    assert (past.taken, both.taken) == (1, 2)


def test_failed_half_way_blocks_nothing_else() -> None:
    half = create_trial(
        state=TrialState.FAIL,
        params={"x": "a"},
        distributions={"x": CategoricalDistribution(list("ab"))},
    )

    assert {"x": "a", "y": "a"} not in Past(20).followed_by([half])


def test_last_unknown_architecture_is_found() -> None:
    """1,999 of 2,000 are known: random draws alone would miss the last."""
    space = {"a": IntDistribution(1, 40), "b": IntDistribution(1, 50)}
    trials = [
        create_trial(params={"a": a, "b": b}, distributions=space, value=0.0)
        for a, b in itertools.product(range(1, 41), range(1, 51))
        if (a, b) != (17, 23)
    ]
    known, random = Past(20).followed_by(trials), np.random.default_rng(0)

    assert random_child(space, known, random) == {"a": 17, "b": 23}
    assert mutated_child({"a": 40, "b": 50}, space, known, random) == {"a": 17, "b": 23}


def test_continuous_choices_are_always_unknown() -> None:
    space = {"a": FloatDistribution(0, 1)}
    trials = [create_trial(params={"a": 0.5}, distributions=space, value=0.0)]
    known, random = Past(20).followed_by(trials), np.random.default_rng(0)

    assert mutated_child({"a": 0.5}, space, known, random) not in known


@pytest.mark.parametrize("options", [{"population": 0}, {"tournament": 0}, {"seed": -1}])
def test_bad_arguments(options: dict[str, int]) -> None:
    with pytest.raises(UserError, match="must"):
        AgingEvolutionSampler(**options)


def test_each_trial_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a proposal costs the same after a long history; and it is what it was without."""
    looked: list[int] = []
    take = Past.take

    def count(self: Past, trial: FrozenTrial) -> None:
        looked.append(trial.number)
        take(self, trial)

    monkeypatch.setattr(Past, "take", count)
    study = optuna.create_study(sampler=AgingEvolutionSampler(seed=3))
    afresh = optuna.create_study()
    for _ in range(60):
        for each in (study, afresh):
            if each is afresh:
                each.sampler = AgingEvolutionSampler(seed=3)
            looked.clear()
            trial = each.ask()
            value = sum(trial.suggest_int(name, 0, 9) for name in "abc")
            if each is study:
                assert len(looked) <= 4
            each.tell(trial, value)

    assert [t.params for t in study.trials] == [t.params for t in afresh.trials]

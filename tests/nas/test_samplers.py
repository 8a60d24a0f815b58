from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
import toyspaces
from optuna.samplers import NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import BaseTrial

from diswot.errors import UserError
from diswot.nas.samplers import SAMPLERS, PerTrial, create_sampler, listed


def space(trial: BaseTrial) -> float:
    x = trial.suggest_float("x", 0, 1)
    return x + trial.suggest_int("n", 1, 9) - len(trial.suggest_categorical("c", ["", "a", "bb"]))


def run(study: optuna.Study, trials: int) -> list[tuple[object, ...]]:
    for _ in range(trials):
        trial = study.ask()
        study.tell(trial, space(trial))
    return [(*trial.params.items(), trial.value) for trial in study.trials]


def started(sampler: optuna.samplers.BaseSampler) -> optuna.Study:
    return optuna.create_study(sampler=sampler, direction="maximize")


@pytest.mark.parametrize("name", SAMPLERS)
def test_proposals_depend_on_seed_number_and_history_alone(name: str) -> None:
    study = started(create_sampler(name, 1))
    whole = run(study, 30)
    for number in (0, 1, 12, 18):  # later, NSGA-II looks at what it noted in the study, too
        other = started(create_sampler(name, 1))
        other.add_trials(study.trials[:number])
        assert run(other, 1)[number] == whole[number]

    assert run(started(create_sampler(name, 1)), 30) == whole
    assert run(started(create_sampler(name, 2)), 30) != whole
    assert len({proposal[0] for proposal in whole}) > 20


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: RandomSampler(seed=seed),
        lambda seed: TPESampler(seed=seed),
        lambda seed: NSGAIISampler(seed=seed, population_size=5),
    ],
)
def test_sampler_made_anew_is_as_good(
    make: Callable[[int], optuna.samplers.BaseSampler],
) -> None:
    def best(sampler: optuna.samplers.BaseSampler) -> float:
        study = started(sampler)
        run(study, 40)
        return study.best_value

    ours = [best(PerTrial(make, seed)) for seed in range(6)]
    theirs = [best(make(seed)) for seed in range(6)]
    assert sum(ours) == pytest.approx(sum(theirs), rel=0.05)


def test_listed_proposes_what_it_was_given() -> None:
    params = {"x": 0.5, "n": 3, "c": "bb"}

    assert toyspaces.suggestions(space, started(listed(deque([params])))) == params


def test_listed_knows_nothing_else() -> None:
    with pytest.raises(KeyError, match="n"):
        toyspaces.suggestions(space, started(listed(deque([{"x": 0.5}]))))


@pytest.mark.parametrize("name", SAMPLERS)
def test_seeds_below_zero_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="below zero"):
        create_sampler(name, -1)


MINE = """
from optuna.samplers import RandomSampler

def random(seed=None):
    return RandomSampler(seed=seed)

def number(): return 3
def raising(): return 1 / 0
"""


def test_samplers_of_a_user(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    wanted = run(started(RandomSampler(seed=5)), 4)
    assert run(started(create_sampler(f"{tmp_path}/mine.py:random", 5)), 4) == wanted
    assert run(started(create_sampler(lambda seed: RandomSampler(seed=seed), 5)), 4) == wanted
    assert run(started(create_sampler(RandomSampler, 5)), 4) == wanted
    assert run(started(create_sampler("optuna.samplers:RandomSampler", 5)), 4) == wanted
    own = RandomSampler()
    assert create_sampler(own, 5) is own and create_sampler(lambda: own, 5) is own


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("{}:number", r"mine.py:number must return an Optuna sampler, not a int"),
        ("{}:raising", r"mine.py:raising fails: ZeroDivisionError: division by zero \(line 8\)"),
        ("{}:randm", r"unknown function in .*mine.py 'randm'; did you mean random"),
        ("evolutions", "unknown sampler 'evolutions'; did you mean evolution"),
    ],
)
def test_what_is_no_sampler(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    with pytest.raises(UserError, match=said):
        create_sampler(name.format(tmp_path / "mine.py"), 0)

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from diswot.storage import compat
from diswot.storage.study import open_storage


@pytest.fixture(params=["journal", "memory", "sqlite"])
def study(request: pytest.FixtureRequest, tmp_path: Path) -> optuna.Study:
    places = {"journal": tmp_path, "sqlite": f"sqlite:///{tmp_path}/a.db", "memory": None}
    storage = open_storage(places[request.param])
    optuna.create_study(storage=storage, study_name="other").ask()
    opened = optuna.create_study(storage=storage, study_name="a")
    for value in range(4):
        opened.tell(opened.ask(), value)
    return opened


def test_storage_of_a_study(study: optuna.Study) -> None:
    storage, number = compat.storage_of(study), compat.study_id(study)

    assert storage.get_study_name_from_id(number) == "a"
    assert storage.get_trial(compat.trial_id(study.trials[2])) == study.trials[2]


def test_constraints_are_where_optunas_samplers_look(study: optuna.Study) -> None:
    trial = study.ask()
    compat.set_constraints(trial, (0.5, -1.0))
    study.tell(trial, 1.0)

    assert study.trials[4].system_attrs["constraints"] == [0.5, -1.0]
    assert study.best_trial.number == 0  # the lowest value whose constraints hold


@pytest.mark.parametrize(
    ("distribution", "value", "inside"),
    [
        (IntDistribution(1, 7, step=2), 3, True),
        (IntDistribution(1, 7, step=2), 4, False),
        (IntDistribution(1, 7), "x", False),
        (IntDistribution(1, 7), None, False),
        (CategoricalDistribution(["a", None]), None, True),
        (CategoricalDistribution(["a", None]), "b", False),
    ],
)
def test_contains(distribution: BaseDistribution, value: Any, inside: bool) -> None:
    assert compat.contains(distribution, value) is inside


class Lowest(compat.ChoosingTrial):
    """A trial that takes the lowest or first value."""

    def choose(self, name: str, distribution: BaseDistribution) -> Any:
        if isinstance(distribution, CategoricalDistribution):
            return distribution.choices[0]
        return distribution.low  # type: ignore[attr-defined]


Asked = Callable[[compat.ChoosingTrial], Any]


@pytest.mark.parametrize(
    ("asked", "value"),
    [
        (lambda trial: trial.suggest_int("x", 3, 9), 3),
        (lambda trial: trial.suggest_float("x", 0.5, 2, log=True), 0.5),
        (lambda trial: trial.suggest_categorical("x", ["a", "b"]), "a"),
    ],
)
def test_a_subclass_chooses_all_values(asked: Asked, value: Any) -> None:
    trial = Lowest()

    assert asked(trial) == value and trial.params == {"x": value}
    with pytest.raises(NotImplementedError):
        asked(compat.ChoosingTrial())

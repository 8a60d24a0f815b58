from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.storages import BaseStorage

from diswot.costs.budget import Excess
from diswot.nas.history import History
from diswot.nas.trial_result import ATTRIBUTE, TrialResult
from diswot.storage.study import opened

optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture(params=["memory", "journal", "database"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BaseStorage | None]:
    places = {"memory": None, "journal": tmp_path, "database": f"sqlite:///{tmp_path / 'study'}"}
    with opened(places[request.param]) as place:
        yield place


def ended(study: optuna.Study, a: int, result: TrialResult) -> int:
    trial = study.ask()
    trial.suggest_int("a", a, a)
    trial.set_user_attr(ATTRIBUTE, result.as_attribute())
    study.tell(trial, 1.0)
    return trial.number


def failed(reason: str) -> TrialResult:
    return TrialResult(failed=reason, kind="error")


def outside(margin: float) -> TrialResult:
    return TrialResult(rejected=Excess("params", 2, 1), margins={"params": margin})


def test_the_first_result_of_an_architecture_is_read_from_the_study(
    storage: BaseStorage | None,
) -> None:
    study = optuna.create_study(storage=storage)
    history, other = History(study), optuna.create_study(storage=storage)
    ended(other, 9, failed("of another study"))
    for place, a in enumerate((3, 1, 3)):
        result = failed(f"{a}, {place}")
        history.add({"a": a}, ended(study, a, result), result)

    firsts = [(trial.number, trial.params, result) for trial, result in history]
    assert firsts == [(0, {"a": 3}, failed("3, 0")), (1, {"a": 1}, failed("1, 1"))]
    assert [{"a": a} in history for a in (3, 1, 9)] == [True, True, False] and len(history) == 2
    repeats = [history.repeat({"a": a}) for a in (3, 1, 9)]
    assert repeats == [failed("3, 0"), failed("1, 1"), None]
    trial, result = history.ended(2)
    assert (trial.number, trial.params, result) == (2, {"a": 3}, failed("3, 2"))


def test_a_repeat_names_the_trial_that_was_scored() -> None:
    study = optuna.create_study()
    history, result = History(study), TrialResult(2.0, {"toy": [2.0]}, 5, {"macs": 3})
    history.add({"a": 1}, ended(study, 1, result), result)

    assert history.repeat({"a": 1}) == TrialResult(2.0, costs={"macs": 3}, reused=0)


def test_counts() -> None:
    history = History(optuna.create_study())
    results = [
        TrialResult(1.0, {"toy": [1.0]}, 5),
        TrialResult(3.0, {"toy": [3.0]}, 5),
        TrialResult(1.0, reused=0),
        failed("so"),
        failed("so"),
    ]
    steps = [history.add({"a": a}, a, result) for a, result in enumerate(results)]

    assert all(steps) and history.within == 5 and history.best == 3.0
    assert history.outcomes == {"scored": 2, "reused": 1, "failed": 2}
    assert (history.reasons, history.kinds) == ({"so": 2}, {"error": 2})


def test_what_is_nearer_to_the_budget_is_progress() -> None:
    history = History(optuna.create_study())
    margins = [0.5, 0.6, 0.2, 0.2, 0.1]

    steps = [history.add({"a": a}, a, outside(margin)) for a, margin in enumerate(margins)]

    assert steps == [True, False, True, False, True] and history.nearest == ((0, 0.1), 4)
    assert history.within == 0 and history.outcomes == {"rejected": 5}

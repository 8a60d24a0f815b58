from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.storages import BaseStorage

from diswot.nas.aging_evolution import key
from diswot.nas.history import Firsts, Scored
from diswot.nas.trial_result import END, End
from diswot.storage.study import opened

optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture(params=["memory", "journal", "database"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BaseStorage | None]:
    places = {"memory": None, "journal": tmp_path, "database": f"sqlite:///{tmp_path / 'study'}"}
    with opened(places[request.param]) as place:
        yield place


def ended(study: optuna.Study, a: int, end: End) -> int:
    trial = study.ask()
    trial.suggest_int("a", a, a)
    trial.set_user_attr(END, end)
    study.tell(trial, 1.0)
    return trial.number


def test_first_end_is_read_from_the_study(storage: BaseStorage | None) -> None:
    study = optuna.create_study(storage=storage)
    firsts, other = Firsts(study), optuna.create_study(storage=storage)
    ended(other, 9, {"failed": "of another study"})
    for a in (3, 1, 3):
        number = ended(study, a, {"failed": f"{a}, {len(study.trials)}"})
        firsts.add(key({"a": a}), number)

    three = {"failed": "3, 0", "trial": 0, "params": {"a": 3}}
    one = {"failed": "1, 1", "trial": 1, "params": {"a": 1}}
    assert list(firsts.values()) == [three, one]
    assert [firsts[key({"a": a})] for a in (3, 1)] == [three, one]
    assert firsts.of(1) == one and firsts.of(2) == {**three, "failed": "3, 2", "trial": 2}
    assert list(firsts) == [key({"a": 3}), key({"a": 1})] and len(firsts) == 2
    assert key({"a": 9}) not in firsts
    with pytest.raises(KeyError):
        firsts[key({"a": 9})]


def test_what_is_read_may_be_changed() -> None:
    study = optuna.create_study()
    firsts = Firsts(study)
    firsts.add(key({"a": 3}), ended(study, 3, {"failed": "so"}))

    firsts[key({"a": 3})]["params"]["a"] = firsts[key({"a": 3})]["failed"] = 4

    assert firsts.of(0) == {"failed": "so", "trial": 0, "params": {"a": 3}}


def test_scored_ones_are_compared_by_score_then_size_then_number() -> None:
    study = optuna.create_study()
    firsts = Firsts(study)
    for a, (score, size) in enumerate([(1.0, 9), (2.0, 8), (2.0, 7), (2.0, 7)]):
        end = {"score": score, "scores": {"toy": [score]}, "model_params": size}
        firsts.add(key({"a": a}), ended(study, a, {**end, "costs": {"macs": a, "memory": 5}}))
    firsts.add(key({"a": 4}), ended(study, 4, {"failed": "so"}))

    ranked = sorted(firsts.scored(["macs"]))

    assert ranked[0] == Scored(-2.0, 7, 2, (2,))
    assert [each.trial for each in ranked] == [2, 3, 1, 0]

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from optuna.distributions import CategoricalDistribution, IntDistribution, distribution_to_json
from optuna.storages.journal._storage import JournalOperation, JournalStorageReplayResult

from diswot.storage.replay import Log, Unusual, merged

START, END = "2026-01-02T03:04:05.000006+00:00", "2026-01-02T03:04:06.000006+00:00"
TEXTS = {
    "a": distribution_to_json(IntDistribution(0, 9)),
    "b": distribution_to_json(CategoricalDistribution(["x", None, 2])),
}


def log(operation: JournalOperation, **fields: Any) -> Log:
    return {"op_code": int(operation), "worker_id": "w", **fields}


def study(name: str = "s") -> Log:
    return log(JournalOperation.CREATE_STUDY, study_name=name, directions=[2])


def created(study: int = 0, **fields: Any) -> Log:
    return log(JournalOperation.CREATE_TRIAL, study_id=study, datetime_start=START, **fields)


def param(trial: int, name: str, value: int, text: str | None = None) -> Log:
    fields = {"param_name": name, "param_value_internal": value}
    fields["distribution"] = text or TEXTS[name]
    return log(JournalOperation.SET_TRIAL_PARAM, trial_id=trial, **fields)


def state(trial: int, to: int, values: list[float] | None = None) -> Log:
    fields = {"datetime_start": START} if to == 0 else {"datetime_complete": END}
    operation = JournalOperation.SET_TRIAL_STATE_VALUES
    return log(operation, trial_id=trial, state=to, values=values, **fields)


def replayed(logs: list[Log]) -> tuple[Any, Any]:
    """The trials and studies that Optuna makes of them."""
    result = JournalStorageReplayResult("reader")
    result.apply_logs(json.loads(json.dumps(logs)))
    studies = [(vars(each), result._study_id_to_trial_ids) for each in result.get_all_studies()]
    return list(result._trials.values()), studies


WAITING = {"state": 4, "system_attrs": {"fixed_params": {"a": 3}}}
TRIALS = some.integers(0, 2)
LOGS = some.one_of(
    some.builds(created, some.integers(0, 1)),
    some.builds(lambda study: created(study, **WAITING), some.integers(0, 1)),
    some.builds(param, TRIALS, some.just("a"), some.integers(0, 9)),
    some.builds(param, TRIALS, some.just("b"), some.integers(0, 2)),
    some.builds(state, TRIALS, some.integers(0, 3), some.none() | some.just([1.5])),
    *(
        some.builds(lambda t, k, v, o=o, f=f: log(o, trial_id=t, **{f: {k: v}}),
                    TRIALS, some.sampled_from("kl"), some.integers(0, 3))
        for o, f in (
            (JournalOperation.SET_TRIAL_USER_ATTR, "user_attr"),
            (JournalOperation.SET_TRIAL_SYSTEM_ATTR, "system_attr"),
        )
    ),
    some.builds(lambda t, s: log(JournalOperation.SET_TRIAL_INTERMEDIATE_VALUE, trial_id=t,
                                 step=s, intermediate_value=s / 2), TRIALS, some.integers(0, 3)),
    some.builds(lambda v: log(JournalOperation.SET_STUDY_USER_ATTR, study_id=0, user_attr={"u": v}),
                some.integers(0, 3)),
    some.builds(study, some.sampled_from("stu")),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(logs=some.lists(LOGS, max_size=25))
def test_optuna_makes_the_same_of_them(logs: list[Log]) -> None:
    whole = [study("s"), study("t"), created(), created(1), created(), *logs]

    found = merged(json.loads(json.dumps(whole)))

    assert replayed(found) == replayed(whole)
    assert sum(each["op_code"] == JournalOperation.CREATE_TRIAL for each in found) == (
        sum(each["op_code"] == JournalOperation.CREATE_TRIAL for each in whole)
    )
    kept = {JournalOperation.CREATE_TRIAL, JournalOperation.CREATE_STUDY}
    assert {each["op_code"] for each in found} <= kept | {JournalOperation.SET_STUDY_USER_ATTR}


def test_a_trial_is_one_log() -> None:
    ends = [state(0, 1, [2.0]), param(0, "b", 1)]

    found = merged([study(), created(), param(0, "a", 3), *ends])

    assert len(found) == 2 and found[1]["params"] == {"a": 3} and found[1]["values"] == [2.0]


def test_a_study_that_was_gone_on_with_is_merged() -> None:
    """Each process asks for it anew; also one that is made later has its own."""
    logs = [study("s"), created(), param(0, "a", 3), study("s"), study("t"), created(1), study("s")]

    found = merged(logs)

    assert [each["op_code"] for each in found] == [0, 4, 0, 4]
    assert replayed(found) == replayed(logs)


NARROW = distribution_to_json(CategoricalDistribution(["x"]))
UNUSUAL = {
    "a choice that changed": [created(), param(0, "b", 1), created(), param(1, "b", 0, NARROW)],
    "a study that is deleted": [log(JournalOperation.DELETE_STUDY, study_id=0)],
    "a trial of no study": [created(1)],
    "an update of no trial": [created(), param(1, "a", 1)],
    "something missing": [created(), log(JournalOperation.SET_TRIAL_PARAM, trial_id=0)],
    "no number": [created(), param("0", "a", 1)],
    "no object": [3],
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_ones_are_left_to_optuna(name: str) -> None:
    with pytest.raises(Unusual):
        merged([study(), *UNUSUAL[name]])

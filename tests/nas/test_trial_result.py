from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from diswot.costs.budget import Excess
from diswot.errors import UserError
from diswot.nas.trial_result import ATTRIBUTE, TrialResult

SCORED = {
    "score": 1.5,
    "scores": {"params": [1.0, 2.0]},
    "model_params": 4,
    "costs": {"latency": 0.5},
    "margins": {"params": -0.5},
}
ENDS: dict[str, dict[str, Any]] = {
    "scores": SCORED,
    "reused": {"reused": 0, "score": 1.5, "costs": {"latency": 0.5}, "margins": {}},
    "rejected": {"rejected": {"of": "params", "value": 5, "limit": 4.0}, "margins": {"params": 1}},
    "failed": {"failed": "ValueError: no", "kind": "error"},
}


def trial(end: Any, choice: Any = "a") -> FrozenTrial:
    made = create_trial(
        state=TrialState.FAIL,
        user_attrs={ATTRIBUTE: end},
        params={"x": choice},
        distributions={"x": CategoricalDistribution(["a", "b", None])},
    )
    return made


RESULTS = {
    "scores": TrialResult(
        1.5, {"params": [1.0, 2.0]}, 4, costs={"latency": 0.5}, margins={"params": -0.5}
    ),
    "reused": TrialResult(1.5, costs={"latency": 0.5}, reused=0),
    "rejected": TrialResult(rejected=Excess("params", 5, 4.0), margins={"params": 1}),
    "failed": TrialResult(failed="ValueError: no", kind="error"),
}


@pytest.mark.parametrize("kind", ENDS)
def test_results_are_written_and_read(kind: str) -> None:
    """In the form that version 0.1.0 wrote."""
    assert RESULTS[kind].as_attribute() == ENDS[kind]
    for costs in ((), ("latency",)):
        assert TrialResult.from_trial(trial(ENDS[kind]), costs) == RESULTS[kind]
    outcome = "scored" if kind == "scores" else kind
    assert RESULTS[kind].outcome == outcome


def test_trial_without_a_result() -> None:
    assert TrialResult.from_trial(create_trial(state=TrialState.RUNNING)) is None
    assert TrialResult.from_trial(trial({})) is None


def test_result_of_a_repeated_architecture() -> None:
    first = RESULTS["scores"]

    assert first.repeated(7) == TrialResult(1.5, costs=first.costs, margins=first.margins, reused=7)
    assert first.repeated(7).repeated(9).reused == 7
    assert RESULTS["failed"].repeated(7) is RESULTS["failed"]


@pytest.mark.parametrize(
    ("margins", "violation"),
    [
        ({}, (0, 0)),
        ({"params": -0.5, "macs": 0.0}, (-2, 0)),
        ({"params": 0.25}, (0, 0.25)),
        ({"params": -0.5, "macs": 3.0}, (-1, 3.0)),
    ],
)
def test_violation(margins: dict[str, float], violation: tuple[int, float]) -> None:
    assert TrialResult(margins=margins).violation == violation


def changed(of: str, **changes: Any) -> dict[str, Any]:
    """Without what is None."""
    return {k: v for k, v in {**ENDS[of], **changes}.items() if v is not None}


OTHERS = [
    *(None, 3, "scores", ["scores"], {"score": 1.0}, {"unknown": 1}),
    {**ENDS["scores"], **ENDS["failed"]},
    *(changed("scores", score=value) for value in (None, "1", [1], float("nan"))),
    *(changed("scores", scores=value) for value in (3, {}, [1.0], {"a": []}, {"a": [None]})),
    *(changed("scores", scores=value) for value in ({"a": 1.0}, {"a": "12"})),
    *(changed("scores", model_params=value) for value in (None, "4", 4.5)),
    *(changed("scores", costs=value) for value in (3, [], {"latency": "1"})),
    changed("scores", margins={"params": None}),
    *(changed("reused", score=None), changed("reused", reused="0")),
    *(changed("rejected", rejected=value) for value in (3, {}, {"of": "params", "value": 5})),
    changed("rejected", rejected={"of": ["params"], "value": 5, "limit": 4}),
    changed("rejected", rejected={"of": "params", "value": "5", "limit": 4}),
    *(changed("failed", failed=3), changed("failed", kind=["error"])),
]


@pytest.mark.parametrize("end", OTHERS, ids=range(len(OTHERS)))
def test_ends_that_no_search_wrote(end: Any) -> None:
    with pytest.raises(UserError, match="trial 0 of the study was not written by a search"):
        TrialResult.from_trial(numbered(trial(end)))


def numbered(made: FrozenTrial) -> FrozenTrial:
    made.number = 0
    return made


def test_costs_that_are_not_there() -> None:
    with pytest.raises(UserError, match="was not written by a search"):
        TrialResult.from_trial(trial(changed("scores", costs={})), ["latency"])
    assert TrialResult.from_trial(trial(ENDS["failed"]), ["latency"])


def test_choices_that_are_no_choices() -> None:
    made = trial(SCORED)
    made.params = {"x": [1, 2]}
    with pytest.raises(UserError, match="was not written by a search"):
        TrialResult.from_trial(made)


JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=4),
    lambda inner: (
        some.lists(inner, max_size=3)
        | some.dictionaries(some.sampled_from([*SCORED, *ENDS, "kind", "of"]), inner, max_size=4)
    ),
    max_leaves=9,
)


@settings(max_examples=200, deadline=None)
@given(end=JSON, costs=some.sampled_from([(), ("latency",)]))
def test_ends_of_any_kind_are_read_or_refused(end: Any, costs: tuple[str, ...]) -> None:
    try:
        kept = TrialResult.from_trial(trial(end), costs)
    except UserError:
        return
    assert kept is None or sum(kind in kept.as_attribute() for kind in ENDS) == 1

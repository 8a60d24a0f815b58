from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from diswot.errors import UserError
from diswot.nas.trial_result import END, KINDS, recorded

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
        user_attrs={END: end},
        params={"x": choice},
        distributions={"x": CategoricalDistribution(["a", "b", None])},
    )
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_ends_as_searches_write_them(kind: str) -> None:
    assert recorded(trial(ENDS[kind])) == ENDS[kind]
    assert recorded(trial(ENDS[kind]), ["latency"]) == ENDS[kind]


def test_trial_without_an_end() -> None:
    assert recorded(create_trial(state=TrialState.RUNNING)) == {} == recorded(trial({}))


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
        recorded(numbered(trial(end)))


def numbered(made: FrozenTrial) -> FrozenTrial:
    made.number = 0
    return made


def test_costs_that_are_not_there() -> None:
    with pytest.raises(UserError, match="was not written by a search"):
        recorded(trial(changed("scores", costs={})), ["latency"])
    assert recorded(trial(ENDS["failed"]), ["latency"])


def test_choices_that_are_no_choices() -> None:
    made = trial(SCORED)
    made.params = {"x": [1, 2]}
    with pytest.raises(UserError, match="was not written by a search"):
        recorded(made)


JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=4),
    lambda inner: (
        some.lists(inner, max_size=3)
        | some.dictionaries(some.sampled_from([*SCORED, *KINDS, "kind", "of"]), inner, max_size=4)
    ),
    max_leaves=9,
)


@settings(max_examples=200, deadline=None)
@given(end=JSON, costs=some.sampled_from([(), ("latency",)]))
def test_ends_of_any_kind_are_read_or_refused(end: Any, costs: tuple[str, ...]) -> None:
    try:
        kept = recorded(trial(end), costs)
    except UserError:
        return
    assert kept == {} or sum(kind in kept for kind in KINDS) == 1

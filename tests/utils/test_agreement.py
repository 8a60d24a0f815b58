"""What a resumed run must share with the run that began."""

from __future__ import annotations

import numpy as np
import pytest

from diswot.errors import UserError
from diswot.utils.agreement import finite, plain, require_same


@pytest.mark.parametrize(
    ("before", "now", "difference"),
    [
        ({"seed": 0}, {"seed": 1}, "seed = 0, not 1"),
        ({"b": 1, "a": 1}, {"a": 2, "b": 2}, "a = 1, not 2"),
        ({"seed": 0}, {}, "seed = 0, not None"),
        ({}, {"seed": 0}, "seed = None, not 0"),
        ({"budget": {"params": 3.0, "macs": None}}, {"budget": {"params": 4.0}},
         "params = 3.0, not 4.0"),
        ({"budget": None}, {"budget": {"params": 4.0}}, "budget = None, not {'params': 4.0}"),
        ({"names": ["a" * 300]}, {"names": ["b"]}, "another names"),
    ],
)  # fmt: skip
def test_the_first_difference_is_named(
    before: dict[str, object], now: dict[str, object], difference: str
) -> None:
    with pytest.raises(UserError) as raised:
        require_same(before, now, "the run to resume")

    assert str(raised.value) == f"the run to resume has {difference}"


def test_what_json_cannot_tell_apart_is_the_same() -> None:
    now = {"mean": (0.5, 0.25), "lr": np.float32(0.5), "none": None, "name": Name()}

    require_same({"mean": [0.5, 0.25], "lr": 0.5, "name": "n"}, now, "the run")
    assert plain(now) == {"mean": [0.5, 0.25], "lr": 0.5, "none": None, "name": "n"}


class Name:
    def __str__(self) -> str:
        return "n"


def test_numbers_that_are_not_finite_become_none() -> None:
    given = {"a": (1.5, float("nan")), "b": {"c": float("-inf"), "d": "text"}, "e": 3}
    assert finite(given) == {"a": [1.5, None], "b": {"c": None, "d": "text"}, "e": 3}

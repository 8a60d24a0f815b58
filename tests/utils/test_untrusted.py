"""Values that anybody may have written."""

from __future__ import annotations

import math
from types import MappingProxyType

import pytest

from diswot.utils.untrusted import mapping, number, numbers


@pytest.mark.parametrize("value", [0, -3, 2.5, 10**30])
def test_a_number(value: float) -> None:
    assert number(value) == value


@pytest.mark.parametrize("value", [None, True, "3", [3], math.nan, math.inf, -math.inf, 10**400])
def test_no_number(value: object) -> None:
    assert number(value) is None


def test_the_numbers_of_a_mapping() -> None:
    assert numbers({"a": 1, "b": math.nan, "c": "x", "d": False, "e": 0.5}) == {"a": 1, "e": 0.5}
    assert numbers([1, 2]) == {}


def test_a_mapping() -> None:
    assert mapping(MappingProxyType({"a": 1})) == {"a": 1}
    assert mapping([("a", 1)]) == mapping(None) == mapping("x") == {}

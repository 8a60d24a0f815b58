from __future__ import annotations

import itertools
import math
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import BaseTrial

from diswot.errors import UserError
from diswot.spaces.trials import (
    EnumeratingTrial,
    FixedParamsTrial,
    choice,
    count_choices,
    describe,
    draw,
)


@st.composite
def stepped(draw: st.DrawFn) -> FloatDistribution:
    low, step = draw(st.floats(-100, 100)), draw(st.floats(1e-3, 10))
    high = low + draw(st.integers(0, 50)) * step
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a range that is no multiple of the step
        return FloatDistribution(low, max(low, high), step=step)


INTEGERS = st.builds(
    lambda low, length, step: IntDistribution(low, low + length * step, step=step),
    st.integers(-50, 50),
    st.integers(0, 60),
    st.integers(1, 9),
)
CATEGORIES = st.builds(
    CategoricalDistribution,
    st.lists(st.none() | st.booleans() | st.integers() | st.text(max_size=3), min_size=1),
)


def inside(distribution: BaseDistribution, value: Any) -> bool:
    return distribution._contains(distribution.to_internal_repr(value))


@given(INTEGERS | CATEGORIES | stepped())
def test_every_value_by_number_is_inside(distribution: BaseDistribution) -> None:
    count = int(count_choices(distribution))
    values = [choice(distribution, index) for index in range(count)]

    assert all(inside(distribution, value) for value in values)
    if not isinstance(distribution, CategoricalDistribution):
        assert values == sorted(set(values))
        assert (values[0], values[-1]) == pytest.approx((distribution.low, distribution.high))
        assert not count > 1 or not inside(distribution, values[-1] + 2 * (values[1] - values[0]))


@given(
    INTEGERS
    | CATEGORIES
    | stepped()
    | st.builds(lambda a, b: FloatDistribution(min(a, b), max(a, b)), *[st.floats(-9, 9)] * 2)
    | st.builds(
        lambda a, b: FloatDistribution(min(a, b), max(a, b), log=True), *[st.floats(1e-9, 9)] * 2
    ),
    st.integers(0, 2**32),
)
def test_what_is_drawn_is_inside(distribution: BaseDistribution, seed: int) -> None:
    assert inside(distribution, draw(distribution, np.random.default_rng(seed)))


def test_sum_of_steps_does_not_leave_the_range() -> None:
    tenths = FloatDistribution(0, 0.3, step=0.1)

    assert 0.1 + 0.1 + 0.1 > 0.3 and 3 * 0.1 > 0.3
    assert [choice(tenths, index) for index in range(4)] == [0, 0.1, 0.2, 0.3]


@pytest.mark.parametrize(
    ("distribution", "count"),
    [
        (CategoricalDistribution(["a", None, 3]), 3),
        (IntDistribution(1, 7, step=2), 4),
        (IntDistribution(-2, 2), 5),
        (IntDistribution(1, 1000, log=True), 1000),
        (FloatDistribution(0, 1, step=0.1), 11),
        (FloatDistribution(0, 1), math.inf),
        (FloatDistribution(2, 2), 1),
    ],
)
def test_size(distribution: BaseDistribution, count: float) -> None:
    assert count_choices(distribution) == count


def test_all_values_are_equally_likely() -> None:
    random = np.random.default_rng(0)
    drawn = [draw(IntDistribution(1, 7, step=2), random) for _ in range(4000)]

    assert all(abs(drawn.count(value) - 1000) < 100 for value in (1, 3, 5, 7))


def test_logarithmic_values_are_even_on_that_scale() -> None:
    random, wide = np.random.default_rng(0), FloatDistribution(1e-6, 1, log=True)
    drawn = [draw(wide, random) for _ in range(4000)]

    assert abs(sum(value < 1e-3 for value in drawn) - 2000) < 150


def space(trial: BaseTrial) -> list[Any]:
    return [
        trial.suggest_int("width", 8, 32, step=8),
        trial.suggest_float("drop", 0, 0.3, step=0.1),
        trial.suggest_categorical("norm", ["batch", None, 1]),
        trial.suggest_float("rate", 0.1, 0.9),
        trial.suggest_int("width", 8, 32, step=8),
    ]


def test_given_gives() -> None:
    params = {"width": 16, "drop": 0.1, "norm": None, "rate": 0.5}

    assert space(FixedParamsTrial(params)) == [16, 0.1, None, 0.5, 16]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 9}, "width = 9 is not among its choices: 8, 16, 24, 32"),
        ({"width": 40}, "width = 40 is not"),
        ({"width": 16.5}, "width = 16.5 is not"),
        ({"width": "wide"}, "width = 'wide' is not"),
        ({"width": None}, "width = None is not"),
        ({"width": [16]}, r"width = \[16\] is not"),
        ({"width": math.nan}, "width = nan is not"),
        ({"drop": 0.15}, "drop = 0.15 is not"),
        ({"norm": "group"}, "norm = 'group' is not among its choices: .*batch"),
        ({"norm": ["batch"]}, r"norm = \['batch'\] is not"),
        ({"rate": 1}, "rate = 1 is not"),
        ({"rate": math.inf}, "rate = inf is not"),
        ({"rate": {}}, r"rate = \{\} is not"),
    ],
)
def test_given_refuses_what_is_outside(change: dict[str, Any], message: str) -> None:
    params = {"width": 16, "drop": 0.1, "norm": None, "rate": 0.5}

    with pytest.raises(UserError, match=message):
        space(FixedParamsTrial(params | change))


def test_given_says_what_is_missing() -> None:
    with pytest.raises(UserError, match=r"parameter 'drop' is missing; its choices: .*0\.3"):
        space(FixedParamsTrial({"width": 16}))


@pytest.mark.parametrize(
    ("distribution", "said"),
    [
        (IntDistribution(1, 7, step=2), "1, 3, 5, 7"),
        (IntDistribution(1, 99), "1 to 99"),
        (IntDistribution(8, 800, step=8), "8 to 800 in steps of 8"),
        (FloatDistribution(0.0, 1.0), "0.0 to 1.0"),
        (CategoricalDistribution(["relu", None]), "'relu', None"),
        (CategoricalDistribution(range(10)), "0, 1, 2, 3, 4, 5, 6, 7, and 2 more"),
    ],
)
def test_choices_as_a_user_reads_them(distribution: BaseDistribution, said: str) -> None:
    assert describe(distribution) == said


def test_choices_count_like_an_odometer() -> None:
    def wheels(trial: BaseTrial) -> tuple[int, ...]:
        first = trial.suggest_int("first", 0, 2)
        again = trial.suggest_int("first", 0, 2)
        assert first == again
        return (first, *(trial.suggest_int(f"rest{i}", 0, 1) for i in range(first)))

    digits: list[int] | None = []
    found = []
    while digits is not None:
        path = EnumeratingTrial(digits)
        found.append(wheels(path))
        assert tuple(path.params.values()) == found[-1]
        assert path.sizes() == [3, *[2] * found[-1][0]]
        digits = path.next_digits()

    pairs = itertools.product(range(2), repeat=2)
    assert found == [(0,), (1, 0), (1, 1), *((2, *pair) for pair in pairs)]


def test_choices_take_the_first_or_the_last() -> None:
    assert space(EnumeratingTrial()) == [8, 0, "batch", 0.1, 8]
    assert space(EnumeratingTrial(last=True)) == [32, 0.3, 1, 0.1, 32]
    assert space(EnumeratingTrial([1, 2], last=True)) == [16, 0.2, 1, 0.1, 16]


@given(st.lists(INTEGERS | CATEGORIES | stepped(), min_size=1, max_size=4))
def test_last_choices_come_last(distributions: list[BaseDistribution]) -> None:
    def flat(trial: EnumeratingTrial) -> None:
        for i, distribution in enumerate(distributions):
            trial._suggest(str(i), distribution)

    last = EnumeratingTrial(last=True)
    flat(last)
    assume(len(last.sizes()) == len(distributions))

    assert last.next_digits() is None


def test_choices_that_cannot_be_stored() -> None:
    path = EnumeratingTrial()
    with pytest.warns(UserWarning, match="persistent"):
        path.suggest_categorical("sizes", [(1, 2)])

    with pytest.raises(UserError, match="choices of 'sizes' must be numbers or strings, not tuple"):
        path.check()

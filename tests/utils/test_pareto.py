from __future__ import annotations

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diswot.utils.pareto import pareto_front

POINTS = st.integers(1, 3).flatmap(
    lambda width: st.lists(st.tuples(*[st.integers(-3, 3)] * width), max_size=12)
)


@pytest.mark.parametrize(
    ("points", "places"),
    [
        ([], []),
        ([(1, 2)], [0]),
        ([(1, 2), (2, 1), (2, 2)], [0, 1]),
        ([(2, 2), (1, 2)], [1]),
        ([(1, 1), (0, 3), (1, 1)], [0, 1]),
        ([(3,), (1,), (1,), (2,)], [1]),
        ([(0, 5, 5), (5, 0, 5), (5, 5, 0), (5, 5, 5)], [0, 1, 2]),
    ],
)
def test_front_by_hand(points: list[tuple[float, ...]], places: list[int]) -> None:
    assert pareto_front(points) == places


@given(POINTS)
def test_front_is_that_of_optuna_with_equal_points_once(points: list[tuple[int, ...]]) -> None:
    places = pareto_front(points)
    there = [points[place] for place in places]

    assert places == sorted(places) and len(set(there)) == len(there)
    if points:
        study = optuna.create_study(directions=["minimize"] * len(points[0]))
        for point in points:
            study.add_trial(optuna.trial.create_trial(values=list(point)))
        if len(points[0]) > 1:
            assert set(there) == {tuple(map(int, t.values)) for t in study.best_trials}
        else:
            assert there == [min(points)]

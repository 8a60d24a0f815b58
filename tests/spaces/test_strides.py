from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diswot.spaces.strides import LEAST, strides

RESNET = (2, 2, 1, 2, 2, 2)


@pytest.mark.parametrize(
    ("size", "kept"),
    [
        (224, [2, 2, 1, 2, 2, 2]),
        (96, [2, 2, 1, 2, 2, 2]),
        (95, [1, 2, 1, 2, 2, 2]),
        (64, [1, 2, 1, 2, 2, 2]),
        (32, [1, 1, 1, 2, 2, 2]),
        (8, [1, 1, 1, 1, 1, 2]),
        (2, [1] * 6),
    ],
)
def test_by_hand(size: int, kept: list[int]) -> None:
    assert strides(RESNET, size) == kept


@given(st.lists(st.sampled_from([1, 2, 4]), max_size=9), st.integers(1, 512))
def test_enough_is_left_and_no_more_than_need_be_is_dropped(wanted: list[int], size: int) -> None:
    kept = strides(wanted, size)

    assert all(a in (1, b) for a, b in zip(kept, wanted, strict=True))
    assert math.prod(kept) * LEAST <= max(size, LEAST)
    if math.prod(wanted) * LEAST <= size:
        assert kept == wanted

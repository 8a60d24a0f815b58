from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import relation_distance
from toys import observation

from diswot.knowledge.relation import relation

quick = settings(derandomize=True, deadline=None, max_examples=25, database=None)
dtypes = st.sampled_from([torch.float32, torch.float64])
small = st.integers(1, 4)


@quick
@given(dtypes, st.integers(0, 10**6), st.integers(1, 8), small, small, small, small)
def test_equals_the_loops_for_any_widths_and_grids(
    dtype: torch.dtype, seed: int, size: int, wide: int, narrow: int, grid: int, other: int
) -> None:
    teacher = observation(seed, size=size, channels=wide, grid=grid, dtype=dtype)
    student = observation(seed + 1, size=size, channels=narrow, grid=other, dtype=dtype)
    expected = relation_distance(teacher.last, student.last)
    assert float(relation(teacher, student)) == pytest.approx(expected, abs=1e-6)


def test_by_hand() -> None:
    # Two samples at right angles against two that are equal: rows (1, 0), (0, 1) against two of
    # (1, 1) / sqrt 2; each differs by (1 - 1 / sqrt 2)^2 + 1 / 2 = 2 - sqrt 2; two rows over 4.
    teacher = replace(observation(0), last=torch.eye(2).view(2, 2, 1, 1))
    student = replace(observation(1), last=torch.ones(2, 3, 1, 1))
    expected = (2 - 2**0.5) / 2
    assert float(relation(teacher, student)) == pytest.approx(expected, abs=1e-6)

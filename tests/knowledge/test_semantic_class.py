from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from knowledge import naive
from toys import observation

from diswot.knowledge.semantic_class import semantic_class

quick = settings(derandomize=True, deadline=None, max_examples=25, database=None)
dtypes = st.sampled_from([torch.float32, torch.float64])
wide = st.integers(1, 9)


@quick
@given(dtypes, st.integers(0, 10**6), st.integers(1, 7), wide, wide)
def test_equals_the_loops_for_any_widths(
    dtype: torch.dtype, seed: int, classes: int, wide: int, narrow: int
) -> None:
    teacher = observation(seed, classes=classes, channels=wide, dtype=dtype)
    student = observation(seed + 1, classes=classes, channels=narrow, dtype=dtype)
    expected = naive.semantic_class(teacher.class_gradient, student.class_gradient)
    assert float(semantic_class(teacher, student)) == pytest.approx(expected, abs=1e-6)


def test_by_hand() -> None:
    # Cosines 1, 24/25 against 1, 0: two entries of four differ by 24/25.
    teacher = replace(observation(0), class_gradient=torch.tensor([[3.0, 4.0], [4.0, 3.0]]))
    student = replace(observation(1), class_gradient=torch.tensor([[0, 2.0, 0], [1.0, 0, 0]]))
    assert float(semantic_class(teacher, student)) == pytest.approx(0.96**2 / 2, abs=1e-6)

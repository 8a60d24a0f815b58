from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from knowledge import naive
from knowledge.made import made, pairs

from diswot.knowledge.attention import at, nst

quick = settings(derandomize=True, deadline=None, max_examples=20, database=None)
small = st.integers(1, 4)
stage = st.tuples(small, small, small, small)
stages = st.lists(stage, min_size=1, max_size=3)
dtypes = st.sampled_from([torch.float32, torch.float64])


@quick
@given(dtypes, st.integers(0, 10**6), stages, small)
def test_equal_the_loops_for_any_widths(
    dtype: torch.dtype, seed: int, stages: list, size: int
) -> None:
    ours, theirs = (tuple((s[i], s[2], s[3]) for s in stages) for i in (0, 1))
    teacher = made(seed, ours, size=size, dtype=dtype)
    student = made(seed + 1, theirs, size=size, dtype=dtype)
    both = pairs(teacher, student)
    assert float(at(teacher, student)) == pytest.approx(naive.at(both), abs=2e-6)
    assert float(nst(teacher, student)) == pytest.approx(naive.nst(both), abs=2e-6)


def test_at_by_hand() -> None:
    # Sums of squares (9, 16) and (1, 0): (9, 16) / sqrt(337) against (1, 0).
    teacher = replace(made(0), stages=(torch.tensor([[[0.0, 4.0]], [[3.0, 0.0]]])[None],))
    student = replace(made(1), stages=(torch.tensor([[[7.0, 0.0]]])[None],))
    expected = 2 - 2 * 9 / 337**0.5
    assert float(at(teacher, student)) == pytest.approx(expected, abs=1e-6)


def test_nst_by_hand() -> None:
    # Teacher: channels at right angles, mean kernel 1/2. Student: one channel, (0.6, 0.8), kernel
    # 1. Between them the mean of 0.36 and 0.64.
    teacher = replace(made(0), stages=(torch.tensor([[[2.0, 0.0]], [[0.0, 5.0]]])[None],))
    student = replace(made(1), stages=(torch.tensor([[[3.0, 4.0]]])[None],))
    assert float(nst(teacher, student)) == pytest.approx(0.5 + 1 - 2 * 0.5, abs=1e-6)


def test_nst_does_not_mind_the_order_or_number_of_equal_channels() -> None:
    teacher, student = made(0), made(1)
    turned = replace(student, stages=tuple(stage.flip(1) for stage in student.stages))
    twice = replace(student, stages=tuple(stage.repeat(1, 2, 1, 1) for stage in student.stages))
    plain = float(nst(teacher, student))
    assert float(nst(teacher, turned)) == pytest.approx(plain, abs=1e-6)
    assert float(nst(teacher, twice)) == pytest.approx(plain, abs=1e-6)

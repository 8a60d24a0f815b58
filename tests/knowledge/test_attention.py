from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from knowledge import naive
from knowledge.made import made, pairs

from diswot.knowledge.attention import at, cwd, nst

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


@quick
@given(
    st.integers(0, 10**6), st.lists(st.tuples(small, small, small), min_size=1, max_size=3), small
)
def test_cwd_equals_the_loops(seed: int, shapes: list, size: int) -> None:
    teacher, student = (made(s, tuple(shapes), size=size) for s in (seed, seed + 1))
    expected = naive.cwd(pairs(teacher, student), 3.0)
    assert float(cwd(teacher, student, 3)) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_cwd_by_hand() -> None:
    # One channel, two positions, T = 2: p = (3/4, 1/4) against (1/2, 1/2).
    teacher = replace(made(0), stages=(torch.tensor([[[[3.0**2, 1.0]]]]).log(),))
    student = replace(made(1), stages=(torch.tensor([[[[7.0, 7.0]]]]),))
    expected = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert float(cwd(teacher, student, 2)) == pytest.approx(expected, rel=1e-5)


def test_cwd_ignores_a_shift_of_each_channel() -> None:
    teacher, student = made(0), made(1)
    moved = [m + torch.arange(m.shape[1])[:, None, None] for m in teacher.stages]
    assert float(cwd(teacher, replace(student, stages=tuple(moved)))) == pytest.approx(0, abs=1e-6)

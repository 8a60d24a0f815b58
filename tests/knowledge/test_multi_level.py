from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from knowledge import naive
from knowledge.made import made

from diswot.knowledge.multi_level import STEPS, mlkd

quick = settings(derandomize=True, deadline=None, max_examples=25, database=None)


def test_the_published_temperatures() -> None:
    assert [4 * step for step in STEPS] == [2, 3, 4, 5, 6]


@quick
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(2, 9), st.sampled_from([1.0, 4.0]))
def test_it_equals_the_loops(seed: int, size: int, classes: int, t: float) -> None:
    teacher, student = (made(s, size=size, classes=classes) for s in (seed, seed + 1))
    expected = naive.mlkd(teacher.logits, student.logits, [t * step for step in STEPS])
    assert float(mlkd(teacher, student, t)) == pytest.approx(expected, rel=1e-4)


def test_a_shift_of_the_logits_changes_nothing() -> None:
    teacher, student = made(0), made(1)
    other = replace(student, logits=student.logits + torch.tensor([3.0, -1, 0, 8])[:, None])
    assert float(mlkd(teacher, other)) == pytest.approx(float(mlkd(teacher, student)), rel=1e-4)

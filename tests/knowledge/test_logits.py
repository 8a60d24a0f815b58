from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from knowledge import naive
from knowledge.made import made
from reference import kd as slow_kd
from toys import observation

from diswot.knowledge.logits import STEPS, dist, dkd, kd, mlkd, wttm

quick = settings(derandomize=True, deadline=None, max_examples=25, database=None)
warmth = st.sampled_from([1.0, 4.0])
weight = st.sampled_from([0.0, 1.0, 8.0])
seeds = st.integers(0, 10**6)
dtypes = st.sampled_from([torch.float32, torch.float64])


@quick
@given(
    dtypes,
    st.integers(0, 10**6),
    st.integers(1, 6),
    st.integers(2, 9),
    st.sampled_from([0.5, 1.0, 4.0]),
)
def test_kd_equals_the_sums(
    dtype: torch.dtype, seed: int, size: int, classes: int, temperature: float
) -> None:
    teacher = observation(seed, size=size, classes=classes, dtype=dtype)
    student = observation(seed + 1, size=size, classes=classes, dtype=dtype)
    expected = slow_kd(teacher.logits, student.logits, temperature)
    actual = float(kd(teacher, student, temperature))
    assert actual == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_kd_by_hand() -> None:
    # p = (3/4, 1/4), q = (1/2, 1/2): 3/4 log(3/2) + 1/4 log(1/2), for each of two samples
    teacher = replace(observation(0), logits=torch.tensor([[math.log(3.0), 0.0]] * 2))
    student = replace(observation(1), logits=torch.zeros(2, 2))
    divergence = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert float(kd(teacher, student, 1.0)) == pytest.approx(divergence, abs=1e-6)
    warmer = replace(teacher, logits=4 * teacher.logits)
    assert float(kd(warmer, student, 4.0)) == pytest.approx(16 * divergence, abs=1e-5)


def test_the_gradient_is_the_difference_of_the_softened_outputs() -> None:
    teacher, student = observation(0), observation(1)
    logits = student.logits.requires_grad_()
    (slope,) = torch.autograd.grad(kd(teacher, student, 4.0), logits)
    difference = (logits / 4).softmax(1) - (teacher.logits / 4).softmax(1)
    torch.testing.assert_close(slope, 4 * difference / len(logits), rtol=1e-5, atol=1e-6)


@quick
@given(dtypes, st.integers(0, 10**6), st.integers(1, 6), st.integers(2, 9), weight, weight, warmth)
def test_dkd_equals_the_sums(
    dtype: torch.dtype, seed: int, size: int, classes: int, alpha: float, beta: float, t: float
) -> None:
    teacher, student = (made(s, size=size, classes=classes, dtype=dtype) for s in (seed, seed + 1))
    expected = naive.dkd(teacher.logits, student.logits, student.targets, alpha, beta, t)
    actual = float(dkd(teacher, student, alpha, beta, t))
    assert actual == pytest.approx(expected, rel=1e-5, abs=1e-5)


@quick
@given(dtypes, st.integers(0, 10**6), st.integers(2, 6), st.integers(2, 9), weight, weight, warmth)
def test_dist_equals_the_loops(
    dtype: torch.dtype, seed: int, size: int, classes: int, beta: float, gamma: float, t: float
) -> None:
    teacher, student = (made(s, size=size, classes=classes, dtype=dtype) for s in (seed, seed + 1))
    expected = naive.dist(teacher.logits, student.logits, beta, gamma, t)
    actual = float(dist(teacher, student, beta, gamma, t))
    assert actual == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_dkd_by_hand() -> None:
    # p = (1/2, 3/8, 1/8), q = (1/4, 1/2, 1/4), the label is the first: b = (1/2, 1/2) against
    # (1/4, 3/4); the others (3/4, 1/4) against (2/3, 1/3).
    teacher = replace(made(0), logits=torch.tensor([[0.5, 0.375, 0.125]] * 2).log())
    student = replace(
        made(1),
        logits=torch.tensor([[0.25, 0.5, 0.25]] * 2).log(),
        targets=torch.zeros(2, dtype=torch.long),
    )
    target = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    others = 0.75 * math.log(9 / 8) + 0.25 * math.log(3 / 4)
    assert float(dkd(teacher, student, 1, 0, 1)) == pytest.approx(target, abs=1e-6)
    assert float(dkd(teacher, student, 0, 1, 1)) == pytest.approx(others, abs=1e-6)
    assert float(dkd(teacher, student, 1, 8, 1)) == pytest.approx(target + 8 * others, abs=1e-5)


def test_dkd_decouples_kd() -> None:
    # Hinton's loss is the target part plus the teacher's doubt, 1 - p_y, times the other part.
    teacher, student = made(0, size=1), made(1, size=1)
    doubt = 1 - float((teacher.logits / 4).softmax(1)[0, student.targets[0]])
    assert float(dkd(teacher, student, 1, doubt)) == pytest.approx(
        float(kd(teacher, student)), rel=1e-5
    )


def test_dkd_of_two_classes_is_the_target_part_alone() -> None:
    teacher, student = made(0, classes=2), made(1, classes=2)
    assert float(dkd(teacher, student)) == pytest.approx(float(kd(teacher, student)), rel=1e-5)


@quick
@given(dtypes, seeds, st.integers(1, 6), st.integers(2, 9), st.sampled_from([1.0, 2.0, 5.0]))
def test_wttm_equals_the_loops(
    dtype: torch.dtype, seed: int, size: int, classes: int, t: float
) -> None:
    teacher, student = (made(s, size=size, classes=classes, dtype=dtype) for s in (seed, seed + 1))
    expected = naive.wttm(teacher.logits, student.logits, t)
    assert float(wttm(teacher, student, t)) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_wttm_at_power_one_is_kd() -> None:
    teacher, student = made(0), made(1)
    assert float(wttm(teacher, student, 1)) == pytest.approx(float(kd(teacher, student, 1)))


def test_wttm_by_hand() -> None:
    # p = (16, 1) / 17, T = 2: powers (4, 1) / sqrt(17), softened (4/5, 1/5) against (1/2, 1/2).
    teacher = replace(made(0), logits=torch.tensor([[16.0, 1.0]]).log())
    student = replace(made(1), logits=torch.zeros(1, 2))
    divergence = 0.8 * math.log(1.6) + 0.2 * math.log(0.4)
    assert float(wttm(teacher, student, 2)) == pytest.approx(5 / math.sqrt(17) * divergence)


def test_dist_by_hand() -> None:
    # Each row of the student is the teacher's turned round: -1 between classes; columns too.
    teacher = replace(made(0), logits=torch.tensor([[0.9, 0.1], [0.2, 0.8]]).log())
    student = replace(made(1), logits=torch.tensor([[0.1, 0.9], [0.8, 0.2]]).log())
    assert float(dist(teacher, student)) == pytest.approx(4, abs=1e-5)
    assert float(dist(teacher, student, 1, 0)) == pytest.approx(2, abs=1e-5)
    assert float(dist(teacher, student, 1, 3, 2)) == pytest.approx(4 * (2 + 6), abs=1e-4)


def test_dist_ignores_shift_and_scale_of_the_probabilities() -> None:
    teacher, student = made(0), made(1)
    probabilities = student.logits.softmax(1)
    milder = replace(student, logits=(0.5 * probabilities + 0.1).log())
    plain = float(dist(teacher, student))
    assert float(dist(teacher, milder)) == pytest.approx(plain, abs=1e-5)


def test_dist_of_constant_outputs_is_that_of_none() -> None:
    student = replace(made(1), logits=torch.full_like(made(1).logits, 0.3))
    assert float(dist(made(0), student)) == pytest.approx(2, abs=1e-6)


def test_the_published_temperatures_of_mlkd() -> None:
    assert [4 * step for step in STEPS] == [2, 3, 4, 5, 6]


@quick
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(2, 9), st.sampled_from([1.0, 4.0]))
def test_mlkd_equals_the_loops(seed: int, size: int, classes: int, t: float) -> None:
    teacher, student = (made(s, size=size, classes=classes) for s in (seed, seed + 1))
    expected = naive.mlkd(teacher.logits, student.logits, [t * step for step in STEPS])
    assert float(mlkd(teacher, student, t)) == pytest.approx(expected, rel=1e-4)


def test_a_shift_of_the_logits_changes_nothing_in_mlkd() -> None:
    teacher, student = made(0), made(1)
    other = replace(student, logits=student.logits + torch.tensor([3.0, -1, 0, 8])[:, None])
    assert float(mlkd(teacher, other)) == pytest.approx(float(mlkd(teacher, student)), rel=1e-4)

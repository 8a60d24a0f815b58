from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import kd as slow_kd
from toys import observation, shuffled

from diswot.errors import UserError
from diswot.knowledge.logits import kd
from diswot.knowledge.registry import KNOWLEDGE

quick = settings(derandomize=True, deadline=None, max_examples=25, database=None)


@quick
@given(
    st.integers(0, 10**6), st.integers(1, 6), st.integers(2, 9), st.sampled_from([0.5, 1.0, 4.0])
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_the_sums(
    dtype: torch.dtype, seed: int, size: int, classes: int, temperature: float
) -> None:
    teacher = observation(seed, size=size, classes=classes, dtype=dtype)
    student = observation(seed + 1, size=size, classes=classes, dtype=dtype)
    expected = slow_kd(teacher.logits, student.logits, temperature)
    actual = float(kd(teacher, student, temperature))
    assert actual == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_by_hand() -> None:
    # p = (3/4, 1/4), q = (1/2, 1/2): 3/4 log(3/2) + 1/4 log(1/2), for each of two samples
    teacher = replace(observation(0), logits=torch.tensor([[math.log(3.0), 0.0]] * 2))
    student = replace(observation(1), logits=torch.zeros(2, 2))
    divergence = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert float(kd(teacher, student, 1.0)) == pytest.approx(divergence, abs=1e-6)
    warmer = replace(teacher, logits=4 * teacher.logits)
    assert float(kd(warmer, student, 4.0)) == pytest.approx(16 * divergence, abs=1e-5)


def test_the_temperature_is_four() -> None:
    teacher, student = observation(0), observation(1)
    assert float(kd(teacher, student)) == float(kd(teacher, student, 4.0))


def test_zero_for_identical_observations_and_more_for_others() -> None:
    assert float(kd(observation(0), observation(0))) == pytest.approx(0, abs=1e-6)
    assert float(kd(observation(0), observation(1))) > 0.1


def test_the_order_of_the_batch_does_not_matter() -> None:
    teacher, student, order = observation(0), observation(1), torch.tensor([2, 0, 3, 1])
    plain = float(kd(teacher, student))
    assert float(kd(shuffled(teacher, order), shuffled(student, order))) == pytest.approx(plain)
    assert float(kd(teacher, shuffled(student, order))) != pytest.approx(plain, rel=1e-3)


def test_other_numbers_of_classes_are_told() -> None:
    with pytest.raises(UserError, match="teacher 5, student 3"):
        kd(observation(0), observation(1, classes=3))


def test_the_gradient_is_the_difference_of_the_softened_outputs() -> None:
    teacher, student = observation(0), observation(1)
    logits = student.logits.requires_grad_()
    (slope,) = torch.autograd.grad(kd(teacher, student, 4.0), logits)
    difference = (logits / 4).softmax(1) - (teacher.logits / 4).softmax(1)
    torch.testing.assert_close(slope, 4 * difference / len(logits), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [0.0, 1e-30, 1.0, 1e6])
def test_gradients_are_finite_however_sure_the_outputs(size: float) -> None:
    student = observation(1)
    logits = (student.logits * size).requires_grad_()
    loss = kd(observation(0), replace(student, logits=logits))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


def test_listed_as_free_of_width() -> None:
    assert KNOWLEDGE["kd"].distance is kd
    assert not KNOWLEDGE["kd"].same_width

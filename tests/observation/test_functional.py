from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import class_similarity as slow_class_similarity
from reference import gram as slow_gram
from reference import semantic_distance
from reference import unit_rows as slow_unit_rows
from torch import Tensor

from diswot.observation.functional import (
    class_similarity,
    gram,
    rank_one_distance,
    relation_matrix,
    unit_rows,
)

DTYPES = (torch.float32, torch.float64)
quick = settings(derandomize=True, deadline=None, max_examples=40, database=None)
seeds = st.integers(0, 10**6)
dtypes = st.sampled_from(DTYPES)
short = st.integers(1, 9)


def draw(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Normal numbers, about a fifth of them zero, rows of very different size."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=generator, dtype=torch.float64)
    values *= torch.rand(shape, generator=generator) > 0.2
    sizes = 10 ** torch.randint(-6, 3, (shape[0], *[1] * (len(shape) - 1)), generator=generator)
    return (values * sizes).to(dtype)


def tolerance(dtype: torch.dtype) -> float:
    return 1e-12 if dtype == torch.float64 else 1e-6


def assert_near(actual: Tensor, expected: Tensor, atol: float) -> None:
    assert actual.shape == expected.shape
    assert float((actual.double() - expected).abs().max()) <= atol


@quick
@given(seeds, short, short, dtypes)
def test_unit_rows_equals_naive(seed: int, rows: int, width: int, dtype: torch.dtype) -> None:
    values = draw(seed, rows, width, dtype=dtype)
    assert unit_rows(values).dtype == dtype
    assert_near(unit_rows(values), slow_unit_rows(values), tolerance(dtype))


@quick
@given(seeds, short, short, st.integers(1, 3), dtypes)
def test_gram_equals_naive(
    seed: int, batch: int, channels: int, side: int, dtype: torch.dtype
) -> None:
    features = draw(seed, batch, channels, side, side, dtype=dtype)
    expected = slow_gram(features)
    atol = tolerance(dtype) * max(1.0, float(expected.abs().max()))
    assert_near(gram(features), expected, atol)


@quick
@given(seeds, short, short, st.integers(1, 3), dtypes)
def test_relation_matrix_equals_naive(
    seed: int, batch: int, channels: int, side: int, dtype: torch.dtype
) -> None:
    features = draw(seed, batch, channels, side, side, dtype=dtype)
    expected = slow_unit_rows(slow_gram(features))
    assert_near(relation_matrix(features), expected, tolerance(dtype))


@quick
@given(seeds, short, short, dtypes)
def test_class_similarity_equals_naive(
    seed: int, classes: int, channels: int, dtype: torch.dtype
) -> None:
    gradient = draw(seed, classes, channels, dtype=dtype)
    assert_near(class_similarity(gradient), slow_class_similarity(gradient), tolerance(dtype))


@quick
@given(seeds, short, st.integers(1, 24), dtypes, st.sampled_from([0.0, 1e-12, 1e-3]))
def test_rank_one_distance_equals_the_matrices(
    seed: int, classes: int, channels: int, dtype: torch.dtype, eps: float
) -> None:
    teacher = draw(seed, classes, channels, dtype=dtype)
    student = draw(seed + 1, classes, channels, dtype=dtype)
    fast = float(rank_one_distance(teacher, student, eps))
    assert fast == pytest.approx(semantic_distance(teacher, student, eps), abs=tolerance(dtype))


@quick
@given(seeds, short, short, dtypes, st.sampled_from([0.0, 1e-3]))
def test_rank_one_distance_lies_between_zero_and_four_and_is_symmetric(
    seed: int, classes: int, channels: int, dtype: torch.dtype, eps: float
) -> None:
    teacher = draw(seed, classes, channels, dtype=dtype)
    student = draw(seed + 1, classes, channels, dtype=dtype)
    distance = float(rank_one_distance(teacher, student, eps))
    assert -tolerance(dtype) <= distance <= 4
    back = float(rank_one_distance(student, teacher, eps))
    assert back == pytest.approx(distance, abs=tolerance(dtype))


def test_unit_rows_by_hand() -> None:
    rows = torch.tensor([[3.0, -4.0], [0.0, 0.0], [0.0, 7.0]])
    assert_near(unit_rows(rows), torch.tensor([[0.6, -0.8], [0.0, 0.0], [0.0, 1.0]]), 1e-7)


def test_relation_matrix_by_hand() -> None:
    # Gram [[1, 1], [1, 2]]: first row over sqrt 2, second over sqrt 5; a third sample is zero.
    features = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    two, five = 1 / math.sqrt(2), 1 / math.sqrt(5)
    expected = torch.tensor([[two, two, 0.0], [five, 2 * five, 0.0], [0.0, 0.0, 0.0]])
    assert_near(relation_matrix(features), expected, 1e-7)


@pytest.mark.parametrize(
    ("teacher", "student", "expected"),
    [
        ([[1.0, 0.0]], [[0.0, 1.0]], 1.0),  # one channel each, none shared: (1 + 1) / 2
        ([[1.0, 1.0]], [[1.0, -1.0]], 2.0),  # a = 0: n_T + n_S
        ([[1.0, 2.0]], [[-1.0, -2.0]], 0.0),  # g g^T knows no overall sign
        ([[1.0, 2.0]], [[30.0, 60.0]], 0.0),  # nor a scale
        ([[0.0, 0.0]], [[1.0, 2.0]], 1.0),  # a class without gradient against a full one
        ([[3.0, 4.0]], [[4.0, 3.0]], 2 - 2 * 24 / 25),
        ([[3.0, 4.0], [1.0, 0.0]], [[4.0, 3.0], [0.0, 1.0]], (2 - 2 * 24 / 25 + 1) / 2),
    ],
)
def test_rank_one_distance_by_hand(
    teacher: list[list[float]], student: list[list[float]], expected: float
) -> None:
    tensors = torch.tensor(teacher), torch.tensor(student)
    assert float(rank_one_distance(*tensors)) == pytest.approx(expected, abs=1e-6)
    assert semantic_distance(*tensors) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("size", "expected"),
    [(10.0, 2 - 2 * 0.96), (1e-3, 1 + 0.125 - 2 * 0.35 * 0.96), (1e-9, 1.0)],
)
def test_rank_one_distance_with_an_epsilon_by_hand(size: float, expected: float) -> None:
    # The cosine is 0.96. Rows of the student's g g^T have the lengths 0.8 and 0.6 times the square
    # of the size, 100, 1e-6 or 1e-18, against eps = 2e-6: s = (1, 1), (0.4, 0.3) or (0, 0). The
    # distance is 1 + mean(s^2) - 2 mean(s) * 0.96.
    teacher = torch.tensor([[3.0, 4.0]])
    student = size * torch.tensor([[0.8, 0.6]])
    distance = float(rank_one_distance(teacher, student, 2e-6))
    assert distance == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("size", [1e18, 1e30])
def test_huge_gradients_count_as_any_others_above_the_epsilon(size: float) -> None:
    teacher, student = draw(0, 4, 5, dtype=torch.float32), draw(1, 4, 5, dtype=torch.float32)
    huge = (unit_rows(student) * size).requires_grad_()
    distance = rank_one_distance(teacher, huge, 1e-12)
    expected = float(rank_one_distance(teacher, student))
    assert float(distance.detach()) == pytest.approx(expected, abs=1e-6)
    distance.backward()
    assert huge.grad.isfinite().all()


@pytest.mark.parametrize("size", [1e-30, 1e-37, 1e30])
def test_directions_survive_any_size(size: float) -> None:
    rows, others = draw(0, 3, 5, dtype=torch.float32), draw(1, 3, 5, dtype=torch.float32)
    rows, others = unit_rows(rows), unit_rows(others)
    assert_near(unit_rows(rows * size), rows.double(), 1e-6)
    assert_near(class_similarity(rows * size), class_similarity(rows).double(), 1e-6)
    small = rank_one_distance(rows * size, others)
    assert float(small) == pytest.approx(semantic_distance(rows, others), abs=1e-6)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_relations_survive_any_size(size: float) -> None:
    features = draw(0, 4, 7, dtype=torch.float32)
    assert_near(relation_matrix(features * size), relation_matrix(features).double(), 1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_zero_rows_stay_zero(dtype: torch.dtype) -> None:
    nothing = torch.zeros(3, 4, dtype=dtype)
    for function in (unit_rows, relation_matrix, class_similarity):
        assert not function(nothing).any()
    assert float(rank_one_distance(nothing, nothing)) == 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", [unit_rows, relation_matrix, class_similarity])
@pytest.mark.parametrize("size", [0.0, 1e-30, 1.0, 1e15])
def test_gradients_are_finite(function, size: float, dtype: torch.dtype) -> None:
    features = torch.randn(4, 5, generator=torch.Generator().manual_seed(0), dtype=dtype)
    features[1] = 0  # a sample or a class without a signal
    features[:, 2] = 0
    features = (features * size).requires_grad_()
    target = torch.randn(function(features).shape, generator=torch.Generator().manual_seed(1))
    (function(features) - target).square().sum().backward()
    assert features.grad.isfinite().all()


@pytest.mark.parametrize("eps", [0.0, 1e-12])
@pytest.mark.parametrize("size", [0.0, 1e-30, 1.0, 1e15])
def test_gradients_of_the_rank_one_distance_are_finite(size: float, eps: float) -> None:
    teacher, student = draw(0, 4, 5, dtype=torch.float32), draw(1, 4, 5, dtype=torch.float32)
    student[1], teacher[2] = 0, 0
    student = (student * size).requires_grad_()
    rank_one_distance(teacher, student, eps).backward()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("function", [unit_rows, relation_matrix, class_similarity])
def test_gradients_equal_finite_differences(function) -> None:
    features = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.autograd.gradcheck(function, features.requires_grad_())


@pytest.mark.parametrize("eps", [0.0, 1.0])
def test_gradient_of_the_rank_one_distance_equals_finite_differences(eps: float) -> None:
    generator = torch.Generator().manual_seed(0)
    teacher, student = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    arguments = (teacher, student.requires_grad_(), eps)
    assert torch.autograd.gradcheck(rank_one_distance, arguments)


def test_no_slope_flows_into_a_row_of_zeros_however_large() -> None:
    rows = torch.tensor([[0.0, 0.0], [3.0, 4.0]], requires_grad=True)
    unit_rows(rows).backward(torch.full((2, 2), 1e30))
    assert rows.grad is not None
    assert torch.equal(rows.grad[0], torch.zeros(2)) and rows.grad[1].isfinite().all()


def test_a_row_of_the_smallest_numbers_has_a_direction() -> None:
    smallest = torch.tensor(1, dtype=torch.int32).view(torch.float32)
    if smallest * 1.0 == 0:
        pytest.skip("this processor takes the smallest numbers for zero")
    for rows in (torch.stack((smallest, smallest)), torch.stack((smallest, smallest)).double()):
        torch.testing.assert_close(unit_rows(rows), torch.full_like(rows, 0.5**0.5))
        learned = unit_rows(rows.clone().requires_grad_())
        torch.testing.assert_close(learned.detach(), unit_rows(rows))

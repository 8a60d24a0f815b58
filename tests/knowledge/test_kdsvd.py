from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from knowledge import naive
from knowledge.made import made, pairs
from torch import Tensor

from diswot.knowledge.kdsvd import dominant, kdsvd, leading, right_vectors

quick = settings(derandomize=True, deadline=None, max_examples=20, database=None)
small = st.integers(1, 4)
stages = st.lists(st.tuples(st.integers(1, 6), small, small), min_size=1, max_size=3)
dtypes = st.sampled_from([torch.float32, torch.float64])


@quick
@given(dtypes, st.integers(0, 10**6), stages, small)
def test_equals_a_full_decomposition(
    dtype: torch.dtype, seed: int, stages: list, size: int
) -> None:
    teacher = made(seed, tuple(stages), size=size, dtype=dtype)
    student = made(seed + 1, tuple((c, w, h) for c, h, w in stages), size=size, dtype=dtype)
    expected = naive.kdsvd(pairs(teacher, student))
    assert float(kdsvd(teacher, student)) == pytest.approx(expected, abs=1e-4)


def test_by_hand() -> None:
    # Teacher: only the first channel is on, v = (1, 0), at both stages; the flow is
    # ((1, e), (e, 1)) with e = exp(-1/8). Student: one channel at each stage too, the first and
    # then the second: ((e, 1), (1, e))... with v = (1, 0) and v' = (0, 1): entries (1-0, 1-1;
    # 0-0, 0-1), so ((e, 1), (1, e)). All four differ by 1 - e.
    on, off = torch.tensor([1.0, 2.0, 0.0]), torch.zeros(3)
    first, second = (torch.stack(rows)[None, :, None] for rows in ((on, off), (off, on)))
    teacher = replace(made(0), stages=(first, first))
    student = replace(made(1), stages=(first, second))
    expected = 4 * (1 - math.exp(-1 / 8)) ** 2
    assert float(kdsvd(teacher, student)) == pytest.approx(expected, abs=1e-6)
    assert float(kdsvd(teacher, teacher)) == 0


def test_the_like_among_the_first_four_is_taken() -> None:
    # The student's strongest direction is the second channel, the teacher's its second strongest.
    strong, weak = torch.tensor([0.0, 9.0]), torch.tensor([1.0, 0.0])
    student = replace(made(1), stages=(torch.stack((weak, strong))[None, :, None],) * 2)
    teacher = replace(made(0), stages=(torch.stack((weak, 0 * strong))[None, :, None],) * 2)
    assert float(kdsvd(teacher, student)) == pytest.approx(0, abs=1e-6)


def samples(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(3, *shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("shape", [(4, 3, 3), (9, 2, 2), (5, 1, 5)])
def test_slopes_are_those_of_the_singular_vectors(shape: tuple[int, int, int]) -> None:
    generator = torch.Generator().manual_seed(5)
    maps, mask = samples(generator, *shape), samples(generator, shape[0], 2)

    def plain(maps: Tensor) -> Tensor:
        vectors = torch.linalg.svd(maps.flatten(2).mT, full_matrices=False)[2][:, :2].mT
        return (vectors * vectors.sum(1, keepdim=True).sign() * mask).sum()

    def ours(maps: Tensor) -> Tensor:
        vectors = right_vectors(maps, 2)
        return (vectors * vectors.detach().sum(1, keepdim=True).sign() * mask).sum()

    torch.testing.assert_close(ours(maps), plain(maps))
    expected = torch.autograd.functional.jacobian(plain, maps)
    torch.testing.assert_close(torch.autograd.functional.jacobian(ours, maps), expected)


@pytest.mark.parametrize("matrix", [torch.zeros(3, 3), torch.eye(3), torch.ones(3, 3)])
def test_slopes_are_finite_where_eigenvalues_meet(matrix: Tensor) -> None:
    grams = matrix[None].clone().requires_grad_()
    vectors = leading(grams, 2)
    vectors.sum().backward()
    assert vectors.isfinite().all()
    assert grams.grad.isfinite().all()


def test_a_map_of_zeros_has_no_vector() -> None:
    assert not right_vectors(torch.zeros(2, 3, 2, 2), 2).any()
    assert not right_vectors(torch.zeros(2, 5, 2, 1), 2).any()


def grams_of(values: list[float], seed: int = 0) -> Tensor:
    """Two symmetric matrices with these eigenvalues."""
    random = torch.randn(2, len(values), len(values), generator=torch.Generator().manual_seed(seed))
    basis = torch.linalg.qr(random.double())[0]
    return (basis * torch.tensor(values).double() @ basis.mT).float()


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("values", [[5.0, 2.0, 1.0, 0.0], [1.0], [3.0] + [1.0] * 99])
def test_the_dominant_vector_is_the_leading_one(values: list[float], scale: float) -> None:
    grams = grams_of(values) * scale
    vectors, found = dominant(grams)
    assert found.all()
    expected = leading(grams.double(), 1)
    cosines = (vectors * expected).sum(1, keepdim=True)
    # A residual of 16 eps of the first eigenvalue is accepted; the vector's error is at most that
    # over the gap to the second (Davis and Kahan).
    first, second, *_ = *values, 0.0
    near = 16 * torch.finfo(torch.float32).eps * first / (first - second)
    torch.testing.assert_close(vectors, (expected * cosines.sign()).float(), rtol=0, atol=near)


@pytest.mark.parametrize("values", [[0.0, 0.0], [1.0, 0.99, 0.5]])
def test_where_none_dominates_it_says_so(values: list[float]) -> None:
    assert not dominant(grams_of(values))[1].any()


@pytest.mark.parametrize("seed", range(4))
def test_with_a_graph_or_without_the_distance_is_the_same(seed: int) -> None:
    shapes = ((8, 5, 5), (6, 3, 3), (4, 2, 2))  # as many positions as channels
    teacher, student = made(seed, shapes), made(seed + 1, shapes)
    first = [stage.abs() for stage in student.stages]  # one dominates; of the others none
    for stages in (first, student.stages):
        plain = replace(student, stages=tuple(stages))
        graph = replace(student, stages=tuple(s.clone().requires_grad_() for s in stages))
        expected = float(kdsvd(teacher, graph).detach())
        assert float(kdsvd(teacher, plain)) == pytest.approx(expected, abs=1e-5)

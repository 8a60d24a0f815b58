from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from knowledge import naive
from knowledge.made import made, pairs

from diswot.knowledge.features import Variances, ab, fitnet, pkd, vid
from diswot.knowledge.stages import slices
from diswot.observation.observe import Observation

quick = settings(derandomize=True, deadline=None, max_examples=20, database=None)
small = st.integers(1, 4)
shapes = st.lists(st.tuples(small, small, small), min_size=1, max_size=3).map(tuple)
dtypes = st.sampled_from([torch.float32, torch.float64])


def one(values: list[float]) -> Observation:
    """A batch of one sample with one stage of one channel."""
    return replace(made(0), stages=(torch.tensor(values).view(1, 1, 1, -1),))


@quick
@given(dtypes, st.integers(0, 10**6), shapes, small)
def test_equal_the_loops(dtype: torch.dtype, seed: int, shapes: tuple, size: int) -> None:
    teacher, student = (made(s, shapes, size=size, dtype=dtype) for s in (seed, seed + 1))
    both = pairs(teacher, student)
    generator = torch.Generator().manual_seed(seed)
    spread = [torch.rand(width, generator=generator) + 0.1 for width, _, _ in shapes]
    assert float(fitnet(teacher, student)) == pytest.approx(naive.fitnet(both), rel=1e-5, abs=1e-6)
    assert float(ab(teacher, student, 0.5)) == pytest.approx(naive.ab(both, 0.5), rel=1e-5)
    expected = naive.vid(both, spread)
    assert float(vid(teacher, student, spread)) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_fitnet_by_hand() -> None:
    assert float(fitnet(one([1.0, 3.0]), one([2.0, 5.0]))) == pytest.approx((1 + 4) / 2)


def signed(seed: int, shapes: tuple, size: int) -> Observation:
    """Maps of both signs, so that no channel is constant."""
    generator = torch.Generator().manual_seed(seed)
    maps = tuple(torch.randn(size, *shape, generator=generator) for shape in shapes)
    return replace(made(seed), stages=maps)


@quick
@given(st.integers(0, 10**6), shapes, st.integers(2, 4))
def test_pkd_is_one_minus_the_correlations_of_channels(seed: int, shapes: tuple, size: int) -> None:
    teacher, student = (signed(s, shapes, size) for s in (seed, seed + 1))
    expected = naive.pkd(pairs(teacher, student))
    assert float(pkd(teacher, student)) == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_pkd_by_hand() -> None:
    # Without means: (-1, 1, 0) against (1, -1, 0), and against (-1, 0, 1) with the cosine 1/2.
    assert float(pkd(one([0.0, 2.0, 1.0]), one([9.0, 3.0, 6.0]))) == pytest.approx(2)
    assert float(pkd(one([0.0, 2.0, 1.0]), one([0.0, 1.0, 2.0]))) == pytest.approx(0.5)
    # A dead channel differs from one that varies by half, and not from another dead one.
    assert float(pkd(one([0.0, 2.0, 1.0]), one([5.0, 5.0, 5.0]))) == pytest.approx(0.5)
    assert float(pkd(one([4.0, 4.0, 4.0]), one([5.0, 5.0, 5.0]))) == 0


def test_pkd_ignores_an_increasing_affine_map_of_each_channel() -> None:
    teacher, student = made(0), made(1)
    channels = [torch.arange(m.shape[1])[:, None, None] for m in student.stages]
    mapped = [(c + 1) * m - 3 * c for c, m in zip(channels, student.stages, strict=True)]
    plain = float(pkd(teacher, student))
    assert float(pkd(teacher, replace(student, stages=tuple(mapped)))) == pytest.approx(plain)


def test_ab_by_hand() -> None:
    # On, on, off, off; the student is 3 (far enough), 0.5 (0.5 short), -2 (far enough), 0.5.
    teacher, student = one([2.0, 0.1, 0.0, -1.0]), one([3.0, 0.5, -2.0, 0.5])
    assert float(ab(teacher, student)) == pytest.approx((0.25 + 2.25) / 4)
    assert float(ab(teacher, student, 3)) == pytest.approx((0 + 6.25 + 1 + 12.25) / 4)


def test_ab_is_zero_for_the_same_signs_beyond_the_margin() -> None:
    teacher = made(0)
    sure = replace(teacher, stages=tuple((4 * (s > 0) - 2).float() for s in teacher.stages))
    assert float(ab(teacher, sure)) == 0
    assert float(ab(teacher, teacher)) > 0


def test_vid_by_hand() -> None:
    # Errors 1 and 2 with variance 1: (1/2 + 4/2) / 2; with variance 4: log(4)/2 more, a quarter.
    teacher, student = one([1.0, 3.0]), one([2.0, 5.0])
    assert float(vid(teacher, student)) == pytest.approx(1.25)
    spread = [torch.tensor([4.0])]
    assert float(vid(teacher, student, spread)) == pytest.approx(1.25 / 4 + math.log(4) / 2)


def test_vid_with_fixed_variance_is_half_a_mean_squared_difference() -> None:
    teacher, student = made(0), made(1)
    assert float(vid(teacher, student)) == pytest.approx(float(fitnet(teacher, student)) / 2)


def test_a_few_samples_at_a_time_are_all_samples() -> None:
    """Without a graph large maps are taken in slices, with one at once."""
    teacher, student = (made(seed, ((8, 64, 64),), size=9, dtype=torch.float64) for seed in (0, 1))
    graph = replace(student, stages=tuple(s.clone().requires_grad_() for s in student.stages))
    assert len(list(slices(*teacher.stages, *student.stages))) > 1
    assert len(list(slices(*teacher.stages, *graph.stages))) == 1
    for distance in (fitnet, ab, vid):
        expected = float(distance(teacher, graph).detach())
        # Two orders of a sum of 294,912 squares differ by at most that many eps of double.
        assert float(distance(teacher, student)) == pytest.approx(expected, rel=1e-10)


def test_variances_start_at_one_and_are_learned_a_channel() -> None:
    teacher, student = made(0), made(1)
    learned = Variances(teacher)
    assert [tuple(v.shape) for v in learned()["variances"]] == [(3,), (5,), (6,)]
    start = vid(teacher, student, **learned())
    assert float(start.detach()) == pytest.approx(float(vid(teacher, student)), abs=1e-5)
    optimiser = torch.optim.SGD(learned.parameters(), 1.0)
    for _ in range(300):
        optimiser.zero_grad()
        vid(teacher, student, **learned()).backward()
        optimiser.step()
    for (a, b), variance in zip(pairs(teacher, student), learned()["variances"], strict=True):
        best = (a - b).square().mean((0, 2, 3))
        torch.testing.assert_close(variance, best, rtol=0.05, atol=0.05)
    assert all(float(v.detach().min()) > 0 for v in learned()["variances"])

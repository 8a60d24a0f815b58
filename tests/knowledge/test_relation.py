from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import relation_distance
from toys import LinearHead, batch, observation, seeded, shuffled

from diswot.knowledge.registry import KNOWLEDGE
from diswot.knowledge.relation import relation
from diswot.observation.observe import observe

quick = settings(derandomize=True, deadline=None, max_examples=25, database=None)
small = st.integers(1, 4)


@quick
@given(st.integers(0, 10**6), st.integers(1, 8), small, small, small, small)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
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


def test_zero_for_identical_observations_and_more_for_others() -> None:
    assert float(relation(observation(0), observation(0))) == 0
    assert float(relation(observation(0), observation(1))) > 1e-3


def test_only_the_last_map_counts_and_not_its_scale() -> None:
    teacher, student = observation(0), observation(1)
    other = replace(observation(2, channels=9, classes=3), last=1e4 * student.last)
    expected = float(relation(teacher, student))  # small, of entries up to 1 in single precision
    assert float(relation(teacher, other)) == pytest.approx(expected, abs=1e-6)


def test_the_order_of_the_batch_does_not_matter() -> None:
    teacher, student, order = observation(0), observation(1), torch.tensor([2, 0, 3, 1])
    plain = float(relation(teacher, student))
    turned = float(relation(shuffled(teacher, order), shuffled(student, order)))
    assert turned == pytest.approx(plain, abs=1e-6)  # entries up to 1 in single precision
    assert float(relation(teacher, shuffled(student, order))) != pytest.approx(plain, rel=1e-3)


def test_the_order_of_the_batch_does_not_matter_to_networks() -> None:
    images, labels = batch()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    teacher, student = seeded(LinearHead, 0), seeded(LinearHead, 1)
    plain, other = (
        relation(observe(teacher, x, y), observe(student, x, y))
        for x, y in ((images, labels), (images[order], labels[order]))
    )
    assert float(plain) > 1e-4
    assert float(other) == pytest.approx(float(plain), abs=1e-6)


def test_maps_too_large_to_square_are_compared() -> None:
    teacher, student = observation(0), observation(1)
    huge = replace(student, last=student.last * 1e30)
    expected = float(relation(teacher, student))
    assert float(relation(teacher, huge)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("size", [0.0, 1e-30, 1.0])
def test_gradients_are_finite_with_zero_samples_and_channels(size: float) -> None:
    student = observation(1)
    maps = student.last * size
    maps[1], maps[:, 2] = 0, 0
    maps.requires_grad_()
    relation(observation(0), replace(student, last=maps)).backward()
    assert maps.grad.isfinite().all()
    assert bool(maps.grad.any()) == (size > 0)


def test_descending_its_gradient_lessens_it() -> None:
    teacher, student = observation(0), observation(1)
    maps = student.last.requires_grad_()
    before = relation(teacher, student)
    (slope,) = torch.autograd.grad(before, maps)
    after = relation(teacher, replace(student, last=maps - 0.01 * slope))
    assert after < before


def test_listed_as_free_of_width() -> None:
    assert KNOWLEDGE["relation"].distance is relation
    assert not KNOWLEDGE["relation"].same_width

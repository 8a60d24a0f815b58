from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from knowledge import naive
from knowledge.made import made, pairs

from diswot.knowledge.relation import relation
from diswot.knowledge.relations import cc, cka, linear_cka, pkt, rkd, sp
from diswot.observation.observe import Observation

quick = settings(derandomize=True, deadline=None, max_examples=20, database=None)
small = st.integers(1, 4)
stages = st.lists(st.tuples(small, small, small), min_size=2, max_size=2).map(tuple)
dtypes = st.sampled_from([torch.float32, torch.float64])
seeds, sizes = st.integers(0, 10**6), st.integers(2, 5)


def seen(points: list[list[float]]) -> Observation:
    return replace(made(0), head_input=torch.tensor(points))


@quick
@given(dtypes, seeds, stages, stages, sizes)
def test_those_of_maps_equal_the_loops_for_any_shapes(
    dtype: torch.dtype, seed: int, ours: tuple, theirs: tuple, size: int
) -> None:
    teacher, student = (
        made(seed + i, shapes, size=size, dtype=dtype) for i, shapes in enumerate((ours, theirs))
    )
    generator = torch.Generator().manual_seed(seed)
    shifted = [
        replace(s, stages=tuple(m + torch.randn(m.shape, generator=generator) for m in s.stages))
        for s in (teacher, student)
    ]
    assert float(sp(teacher, student)) == pytest.approx(naive.sp(pairs(teacher, student)), abs=1e-6)
    assert float(cka(*shifted)) == pytest.approx(naive.cka(pairs(*shifted)), abs=1e-5)


@quick
@given(dtypes, seeds, st.integers(2, 6), st.integers(2, 6), sizes)
def test_those_of_vectors_equal_the_loops_for_any_widths(
    dtype: torch.dtype, seed: int, wide: int, narrow: int, size: int
) -> None:
    teacher, student = (
        made(seed + i, ((width, 1, 1),), size=size, dtype=dtype)
        for i, width in enumerate((wide, narrow))
    )
    h = teacher.head_input, student.head_input
    assert float(rkd(teacher, student)) == pytest.approx(naive.rkd(*h, 1, 2), abs=1e-5)
    assert float(rkd(teacher, student, 3, 0)) == pytest.approx(naive.rkd(*h, 3, 0), abs=1e-5)
    assert float(pkt(teacher, student)) == pytest.approx(naive.pkt(*h), rel=1e-3, abs=1e-5)
    assert float(cc(teacher, student)) == pytest.approx(naive.cc(*h, 0.4, 2), abs=1e-6)
    assert float(cc(teacher, student, 1, 3)) == pytest.approx(naive.cc(*h, 1, 3), abs=1e-6)


def test_sp_is_relation_at_every_stage() -> None:
    teacher, student = made(0), made(1)
    parts = [
        float(relation(replace(teacher, last=a), replace(student, last=b)))
        for a, b in pairs(teacher, student)
    ]
    assert float(sp(teacher, student)) == pytest.approx(sum(parts) / 3)
    last = [replace(s, stages=s.stages[-1:]) for s in (teacher, student)]
    assert float(sp(*last)) == pytest.approx(parts[-1])


def test_cka_by_hand() -> None:
    # One feature each: the squared correlation of (0, 1, 2) and (0, 1, 0) is 0; of (0, 1, 2) and
    # (5, 3, 1) it is 1; of (0, 1, 2) and (0, 0, 3) it is (3 / sqrt(2 * 6))^2 = 3/4.
    line = torch.tensor([[0.0], [1.0], [2.0]])
    for other, expected in (([0, 1, 0], 0), ([5, 3, 1], 1), ([0, 0, 3], 0.75)):
        assert float(linear_cka(line, torch.tensor(other)[:, None] * 1.0)) == pytest.approx(
            expected, abs=1e-6
        )


def test_cka_ignores_shift_scale_and_rotation() -> None:
    x = made(0).last.flatten(1)
    generator = torch.Generator().manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(24, 24, generator=generator))[0]
    assert float(linear_cka(x, 7 * x @ rotation + 1)) == pytest.approx(1, abs=1e-4)
    assert float(linear_cka(x, 1e30 * x)) == pytest.approx(1, abs=1e-5)


def test_cka_of_constant_features_is_zero() -> None:
    constant = torch.full((4, 3), 0.1)
    assert float(linear_cka(made(0).last, constant)) == 0


def test_rkd_by_hand() -> None:
    # Teacher: points 0, 1, 3 on a line; distances 1, 2, 3 over their mean 2. Student: 0, 1, 2;
    # 1, 1, 2 over 4/3. Differences 1/4, 1/4, 0, each twice among nine pairs. Angles agree.
    teacher, student = seen([[0.0], [1.0], [3.0]]), seen([[0.0], [1.0], [2.0]])
    distance = 2 * (0.25**2 + 0.25**2) / 2 / 9
    assert float(rkd(teacher, student)) == pytest.approx(distance, abs=1e-6)
    # A right angle at the first point and 45 degrees at the others, against a line 0, 1, -1: the
    # angle at the first is 180 degrees, at the others 0.
    teacher, student = seen([[0.0, 0], [1, 0], [0, 1]]), seen([[0.0], [1.0], [-1.0]])
    half = 0.5**0.5
    angle = (2 * 1 / 2 + 4 * (1 - half) ** 2 / 2) / 27
    assert float(rkd(teacher, student, 0, 1)) == pytest.approx(angle, abs=1e-6)


def test_rkd_ignores_shift_scale_and_mirroring() -> None:
    teacher, student = made(0), made(1)
    other = replace(student, head_input=3 - 5e3 * student.head_input.flip(1))
    plain = float(rkd(teacher, student))
    assert float(rkd(teacher, other)) == pytest.approx(plain, abs=1e-4)


def test_pkt_by_hand() -> None:
    # Cosines of the first with the others: teacher 1, 0 (closeness 1, 1/2: 2/3, 1/3), and so on.
    teacher = seen([[1.0, 0], [2, 0], [0, 1]])
    student = seen([[1.0, 0], [0, 3], [1, 0]])
    p = [[2 / 3, 1 / 3], [2 / 3, 1 / 3], [0.5, 0.5]]  # the others in order, for each sample
    q = [[1 / 3, 2 / 3], [0.5, 0.5], [2 / 3, 1 / 3]]
    rows = [
        sum(a * math.log(a / b) for a, b in zip(ours, theirs, strict=True))
        for ours, theirs in zip(p, q, strict=True)
    ]
    assert float(pkt(teacher, student)) == pytest.approx(sum(rows) / 3, abs=1e-5)


def test_pkt_of_opposite_neighbours_is_finite() -> None:
    teacher, student = seen([[1.0], [1.0], [-1.0]]), seen([[1.0], [-1.0], [1.0]])
    assert 1 < float(pkt(teacher, student)) < 20


def test_pkt_of_a_sample_opposite_to_all_others_has_no_neighbours() -> None:
    teacher = seen([[0.3], [0.1], [-0.7]])
    student = seen([[0.1], [0.3], [-1.7]])
    assert float(pkt(teacher, student)) == pytest.approx(0, abs=1e-6)


def test_cc_by_hand() -> None:
    # Cosine 0 against 1 of two samples: exp(-0.8) against exp(-0.8) (1 + 0.8 + 0.32), twice of 4.
    teacher, student = seen([[1.0, 0], [0, 1]]), seen([[1.0, 1], [2, 2]])
    expected = (math.exp(-0.8) * 1.12) ** 2 / 2
    assert float(cc(teacher, student)) == pytest.approx(expected, abs=1e-6)


def test_cc_nears_the_gaussian_kernel() -> None:
    x = made(0).head_input
    unit = x / x.norm(dim=1, keepdim=True)
    kernel = (-0.4 * torch.cdist(unit, unit).square()).exp()
    student = replace(made(1), head_input=torch.zeros_like(x))  # series of cosine 0: exp(-0.8)
    expected = (kernel - math.exp(-0.8)).square().mean()
    assert float(cc(made(0), student, 0.4, 12)) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("distance", [rkd, pkt, cc])
def test_of_many_rows_evenly_spaced_ones_are_compared(distance) -> None:
    teacher, student = made(0, size=300), made(1, size=300)
    kept = torch.linspace(0, 299, 256).long()
    few = [replace(seen, head_input=seen.head_input[kept]) for seen in (teacher, student)]
    assert torch.equal(distance(teacher, student), distance(*few))

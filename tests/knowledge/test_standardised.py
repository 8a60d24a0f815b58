from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from knowledge import naive
from knowledge.made import made
from reference import kd as slow_kd

from diswot.knowledge.logits import kd
from diswot.knowledge.registry import get_distance

quick = settings(derandomize=True, deadline=None, max_examples=25, database=None)
NAMES = ["kd_standardised", "dkd_standardised", "dist_standardised"]
every = pytest.mark.parametrize("name", NAMES)


@quick
@given(st.integers(0, 10**6), st.integers(2, 6), st.integers(3, 9), st.sampled_from([1.0, 2.0]))
def test_they_equal_the_loops(seed: int, size: int, classes: int, t: float) -> None:
    teacher, student = (made(s, size=size, classes=classes) for s in (seed, seed + 1))
    z_t, z_s = naive.z_scores(teacher.logits), naive.z_scores(student.logits)
    expected = {
        "kd_standardised": slow_kd(z_t, z_s, t),
        "dkd_standardised": naive.dkd(z_t, z_s, student.targets, 1, 2, t),
        "dist_standardised": naive.dist(z_t, z_s, 1, 1, t),
    }
    for name in NAMES:
        actual = float(get_distance(name).distance(teacher, student, temperature=t))
        assert actual == pytest.approx(expected[name], rel=1e-4, abs=1e-5), name


@every
def test_an_increasing_affine_map_of_a_row_changes_nothing(name: str) -> None:
    teacher, student = made(0), made(1)
    scales, shifts = torch.tensor([0.01, 1, 3, 1e6])[:, None], torch.tensor([0.5, -7, 30, 0])
    other = replace(student, logits=scales * student.logits + shifts[:, None])
    row = get_distance(name)
    assert float(row.between(teacher, other)) == pytest.approx(
        float(row.between(teacher, student)), rel=1e-3
    )
    same = replace(teacher, logits=scales * teacher.logits)
    assert float(row.between(teacher, same)) == pytest.approx(0, abs=1e-5)
    assert float(kd(teacher, same)) > 0.01


def test_by_hand() -> None:
    # Of two classes the z-scores are +-1/sqrt(2) for any logits: the order alone counts.
    teacher = replace(made(0), logits=torch.tensor([[5.0, 1.0], [0.0, 2.0]]))
    student = replace(made(1), logits=torch.tensor([[3.0, 2.9], [7.0, -9.0]]))
    row = get_distance("kd_standardised")
    # At T = 2 the two differ in the second row, p = (a, 1 - a) against (1 - a, a).
    a = float(torch.sigmoid(torch.tensor(-(2**-0.5), dtype=torch.float64)))
    divergence = (1 - 2 * a) * float(torch.log(torch.tensor((1 - a) / a)))
    assert float(row.between(teacher, student)) == pytest.approx(4 * divergence / 2, rel=1e-5)

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from knowledge import naive
from knowledge.made import made, pairs

from diswot.knowledge.channels import flows, fsp, ickd

quick = settings(derandomize=True, deadline=None, max_examples=20, database=None)
small = st.integers(1, 4)
dtypes = st.sampled_from([torch.float32, torch.float64])
widths = st.lists(small, min_size=1, max_size=3)


def pyramid(widths: list[int], side: int, factor: int) -> tuple[tuple[int, int, int], ...]:
    """Shapes whose grids shrink by a factor from stage to stage."""
    sides = [side * factor ** (len(widths) - 1 - i) for i in range(len(widths))]
    return tuple((width, side, side) for width, side in zip(widths, sides, strict=True))


@quick
@given(dtypes, st.integers(0, 10**6), widths, st.integers(1, 3), st.integers(1, 3), small)
def test_equal_the_loops_for_any_grids(
    dtype: torch.dtype, seed: int, widths: list[int], side: int, other: int, size: int
) -> None:
    teacher = made(seed, pyramid(widths, side, 2), size=size, dtype=dtype)
    student = made(seed + 1, pyramid(widths, other, 3), size=size, dtype=dtype)
    both = pairs(teacher, student)
    assert float(fsp(teacher, student)) == pytest.approx(naive.fsp(both), rel=1e-5, abs=1e-6)
    assert float(ickd(teacher, student)) == pytest.approx(naive.ickd(both), abs=1e-5)


def test_flows_go_from_stage_to_stage() -> None:
    a, b, c = made(0).stages
    assert flows([a, b, c]) == [(a, b), (b, c)]
    assert flows([a]) == [(a, a)]


def test_fsp_by_hand() -> None:
    # Teacher: rows (1, 2, 3, 4) pooled to maxima (2, 4), times (1, 1) over 2 positions: 3.
    # Student: (0, 0, 0, 2) pooled to (0, 2), times (3, 1): 1.
    teacher = replace(
        made(0), stages=(torch.arange(1.0, 5).view(1, 1, 1, 4), torch.ones(1, 1, 1, 2))
    )
    last = torch.tensor([[[[3.0, 1.0]]]])
    student = replace(made(1), stages=(torch.tensor([[[[0.0, 0, 0, 2]]]]), last))
    assert float(fsp(teacher, student)) == pytest.approx((3 - 1) ** 2)


def test_fsp_of_a_single_stage_by_hand() -> None:
    # Gram matrices over two positions: ((5, 1), (1, 1)) / 2 against ((0, 0), (0, 2)) / 2.
    teacher = replace(made(0), stages=(torch.tensor([[[1.0, 2.0]], [[1.0, 0.0]]])[None],))
    student = replace(made(1), stages=(torch.tensor([[[0.0, 0.0]], [[1.0, 1.0]]])[None],))
    assert float(fsp(teacher, student)) == pytest.approx((25 + 1 + 1 + 1) / 4 / 4)


def test_ickd_by_hand() -> None:
    # Channels at right angles against equal ones: rows (1, 0), (0, 1) against two of
    # (1, 1) / sqrt 2; each differs by 2 - sqrt 2; two rows over C = 2.
    teacher = replace(made(0), stages=(torch.tensor([[[3.0, 0.0]], [[0.0, 2.0]]])[None],))
    student = replace(made(1), stages=(torch.ones(1, 2, 1, 3),))
    assert float(ickd(teacher, student)) == pytest.approx(2 - 2**0.5, abs=1e-6)

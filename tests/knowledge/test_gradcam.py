from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from knowledge import naive
from knowledge.made import made

from diswot.errors import UserError
from diswot.knowledge.gradcam import class_activation, gradcam

quick = settings(derandomize=True, deadline=None, max_examples=25, database=None)
dtypes = st.sampled_from([torch.float32, torch.float64])
small = st.integers(1, 4)


@quick
@given(dtypes, st.integers(0, 10**6), st.integers(1, 5), small, small, small, small)
def test_equals_the_loops_for_any_widths_and_grids(
    dtype: torch.dtype, seed: int, size: int, wide: int, narrow: int, grid: int, other: int
) -> None:
    teacher = made(seed, ((wide, grid, other),), size=size, dtype=dtype)
    student = made(seed + 1, ((narrow, other, grid),), size=size, dtype=dtype)
    pair = [(seen.last, seen.cam_weights) for seen in (teacher, student)]
    assert float(gradcam(teacher, student)) == pytest.approx(naive.gradcam(*pair), abs=1e-5)


def test_by_hand() -> None:
    # Weights (1, -1). Teacher: relu((3, 1) - (0, 2)) = (3, 0), unit (1, 0). Student: relu of
    # (3, 4) - (0, 0), unit (0.6, 0.8). Squared difference 0.16 + 0.64; the second sample's maps
    # are equal, so the mean is 0.4.
    maps = torch.tensor([[[3.0, 1.0], [0.0, 2.0]], [[1.0, 1.0], [0.0, 0.0]]])[:, :, None]
    other = torch.tensor([[[3.0, 4.0], [0.0, 0.0]], [[2.0, 2.0], [0.0, 0.0]]])[:, :, None]
    weights = torch.tensor([[1.0, -1.0], [1.0, -1.0]])
    teacher = replace(made(0), last=maps, cam_weights=weights)
    student = replace(made(1), last=other, cam_weights=weights)
    assert float(gradcam(teacher, student)) == pytest.approx(0.4, abs=1e-6)


def test_a_map_of_zeros_counts_one_against_any_other() -> None:
    teacher = replace(made(0), last=made(0).last + 1, cam_weights=made(0).cam_weights.abs())
    blind = replace(made(1), cam_weights=torch.zeros_like(made(1).cam_weights))
    assert float(gradcam(teacher, blind)) == pytest.approx(1)
    assert float(gradcam(blind, blind)) == 0


def test_maps_are_not_negative() -> None:
    activation = class_activation(made(3))
    assert activation.shape == (4, 2, 2)
    assert float(activation.min()) == 0
    assert float(activation.max()) > 0


@pytest.mark.parametrize("blind", [0, 1])
def test_weights_that_were_not_observed_are_told(blind: int) -> None:
    both = [made(0), made(1)]
    both[blind] = replace(both[blind], cam_weights=None)
    with pytest.raises(UserError, match=r"observe\(\.\.\., cam=True\)"):
        gradcam(*both)

"""Eigenvalues by hand."""

from __future__ import annotations

import math

import pytest
import torch

from diswot.proxies.eigen import eigenvalues, spectral_entropy, spectral_norm


def test_eigenvalues_ascend_in_double() -> None:
    values = eigenvalues(torch.tensor([[2.0, 1.0], [1.0, 2.0]]))
    assert values.dtype == torch.float64 and values.tolist() == pytest.approx([1, 3])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_has_none(bad: float) -> None:
    values = eigenvalues(torch.tensor([[1.0, bad], [bad, 1.0]]))
    assert values.shape == (2,) and values.isnan().all()


@pytest.mark.parametrize(
    ("matrix", "norm"),
    [
        ([[3.0, 0.0], [4.0, 0.0]], 5),  # a column of length 5
        ([[0.0, -2.0], [2.0, 0.0]], 2),  # twice a turn
        ([[1.0, 2.0, 2.0]], 3),
        ([[0.0, 0.0], [0.0, 0.0]], 0),
    ],
)
def test_spectral_norm(matrix: list[list[float]], norm: float) -> None:
    assert spectral_norm(torch.tensor(matrix)) == pytest.approx(norm, abs=1e-7)


@pytest.mark.parametrize(
    ("values", "entropy"),
    [
        ([5.0, 5.0, 5.0, 5.0], math.log(4)),
        ([7.0, 0.0, 0.0], 0),
        ([7.0, -3.0], 0),  # below zero by rounding alone
        ([0.0, 0.0], 0),
        ([3.0, 1.0], math.log(4) - 0.75 * math.log(3)),
    ],
)
def test_entropy_of_a_spectrum(values: list[float], entropy: float) -> None:
    found = spectral_entropy(torch.tensor(values, dtype=torch.float64))  # as `eigenvalues` gives
    assert found == pytest.approx(entropy, abs=1e-12)

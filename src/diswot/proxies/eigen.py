"""Spectra of symmetric matrices, also of matrices with entries that are not finite."""

from __future__ import annotations

import torch
from torch import Tensor


def eigenvalues(matrix: Tensor) -> Tensor:
    """Return the eigenvalues of a symmetric matrix, n x n, in ascending order, in float64.

    All are NaN if an entry is not finite.
    """
    if not matrix.isfinite().all():
        return torch.full_like(matrix[0], torch.nan, dtype=torch.float64)
    values: Tensor = torch.linalg.eigvalsh(matrix.double())
    return values


def spectral_norm(matrix: Tensor) -> float:
    """Return the largest singular value of a matrix."""
    return float(eigenvalues(matrix.double().T @ matrix.double())[-1].clamp_min(0).sqrt())


def spectral_entropy(values: Tensor) -> float:
    """Return the entropy of a spectrum divided by its sum, in nats; 0 if all values are zero.

    Negative eigenvalues, which are rounding errors, count as zero.
    """
    values = values.clamp_min(0)
    if not values.any():
        return 0.0
    shares = values / values.sum()
    return -float(torch.xlogy(shares, shares).sum())

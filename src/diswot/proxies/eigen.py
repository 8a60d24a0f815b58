"""Eigenvalues of symmetric matrices, also of those that hold what is not a number."""

from __future__ import annotations

import torch
from torch import Tensor


def eigenvalues(matrix: Tensor) -> Tensor:
    """In ascending order, in float64; all NaN where an entry is not finite."""
    if not matrix.isfinite().all():
        return torch.full_like(matrix[0], torch.nan, dtype=torch.float64)
    values: Tensor = torch.linalg.eigvalsh(matrix.double())
    return values


def spectral_norm(matrix: Tensor) -> float:
    """The largest singular value."""
    return float(eigenvalues(matrix.double().T @ matrix.double())[-1].clamp_min(0).sqrt())


def spectral_entropy(values: Tensor) -> float:
    """Entropy of what are not negative, divided by their sum, in nats; 0 where all are zero."""
    values = values.clamp_min(0)
    if not values.any():
        return 0.0
    shares = values / values.sum()
    return -float(torch.xlogy(shares, shares).sum())

"""What the feature maps say of places: where the channels of a network respond."""

from __future__ import annotations

import torch
from torch import Tensor

from diswot.knowledge.stages import average, channel_gram, matched, moderate, once
from diswot.observation.functional import unit_rows
from diswot.observation.observe import Observation


def at(teacher: Observation, student: Observation) -> Tensor:
    """Attention transfer: where there is activity, compared. Zagoruyko and Komodakis, ICLR 2017.

    The maps of sum_c A_c^2 to unit length; squared difference (the paper's eq. 2 has the
    norm itself, whose slope is infinite where the maps agree), summed over positions, mean of
    samples and pairs of stages. A map of zeros stays zero. Works for any widths.

    Returns:
        A scalar between 0 and 2.

    Raises:
        UserError: A pair of maps differs in its grid.
    """
    pairs = matched("at", teacher, student, grids=True)
    looks = ((_attention(ours), _attention(theirs)) for ours, theirs in pairs)
    return average((ours - theirs).square().sum(1).mean() for ours, theirs in looks)


@once
def _attention(maps: Tensor) -> Tensor:
    return unit_rows(torch.linalg.vector_norm(moderate(maps), dim=1).square().flatten(1))


def nst(teacher: Observation, student: Observation) -> Tensor:
    """Neuron selectivity transfer: the places that channels select, compared as distributions.

    Squared maximum mean discrepancy between the channels of teacher and student, each channel's
    map scaled to unit length, with the polynomial kernel k(x, y) = (x . y)^2; mean of samples
    and pairs of stages. Huang and Wang, 2017 (arXiv 1707.01219), with d = 2 and c = 0.
    Works for any widths.

    Returns:
        A scalar between 0 and 2.

    Raises:
        UserError: A pair of maps differs in its grid.
    """
    pairs = matched("nst", teacher, student, grids=True)
    return average(_discrepancy(ours, theirs).mean() for ours, theirs in pairs)


def _discrepancy(teacher: Tensor, student: Tensor) -> Tensor:
    """B, of maps; by way of the HW x HW moments where these are the smaller."""
    if teacher.shape[2:].numel() ** 2 < teacher.shape[1] * student.shape[1]:
        return (_moments(teacher) - _moments(student)).square().sum((1, 2))
    (own, first), (others, second) = _self_kernel(teacher), _self_kernel(student)
    inner = moderate(teacher).flatten(2) @ moderate(student).flatten(2).mT
    return own + others - 2 * _kernel(inner, first, second)


@once
def _moments(maps: Tensor) -> Tensor:
    rows = unit_rows(maps.flatten(2))
    return rows.mT @ rows / rows.shape[1]


@once
def _self_kernel(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of k over all pairs of channels, B, and the channels' squared lengths, B x C."""
    inner = channel_gram(maps)
    lengths = inner.diagonal(dim1=1, dim2=2)
    return _kernel(inner, lengths, lengths), lengths


def _kernel(inner: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Mean of the squared cosines, from inner products and squared lengths; B."""
    left, right = (1 / (lengths + (lengths == 0)) for lengths in (first, second))
    squares = left[:, None] @ inner.square() @ right[:, :, None]
    return squares.flatten() / inner[0].numel()

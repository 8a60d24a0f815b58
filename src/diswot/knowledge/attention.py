"""What the feature maps say of places: where the channels of a network respond."""

from __future__ import annotations

from torch import Tensor

from diswot.knowledge.stages import average, matched, scaled
from diswot.observe import Observation
from diswot.similarity import unit_rows


def at(teacher: Observation, student: Observation) -> Tensor:
    """Attention transfer: where there is activity, compared. Zagoruyko and Komodakis, ICLR 2017.

    The maps of sum_c A_c^2, scaled to unit length; squared difference (the paper's eq. 2 has the
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


def _attention(maps: Tensor) -> Tensor:
    return unit_rows(scaled(maps).square().sum(1).flatten(1))


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
    return average(
        _discrepancy(unit_rows(ours.flatten(2)), unit_rows(theirs.flatten(2))).mean()
        for ours, theirs in pairs
    )


def _discrepancy(teacher: Tensor, student: Tensor) -> Tensor:
    """B, of B x C x N and B x C' x N; by way of N x N moments where these are the smaller."""
    if teacher.shape[2] ** 2 <= teacher.shape[1] * student.shape[1]:
        return (_moments(teacher) - _moments(student)).square().sum((1, 2))
    own = _kernel(teacher, teacher) + _kernel(student, student)
    return own - 2 * _kernel(teacher, student)


def _moments(rows: Tensor) -> Tensor:
    return rows.mT @ rows / rows.shape[1]


def _kernel(rows: Tensor, others: Tensor) -> Tensor:
    """Mean of k over all pairs of rows."""
    return (rows @ others.mT).square().mean((1, 2))

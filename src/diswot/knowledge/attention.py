"""Distances of the positions at which the channels of a network respond, over the `stages`.

All raise a `UserError` if the maps of a pair have different grids; `cwd` needs one width, too.

Letters: B images, C channels, H x W positions.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import kl_div

from diswot.knowledge.stages import average, cached, channel_gram, comparable_pairs, rescaled
from diswot.observation.functional import unit_rows
from diswot.observation.observe import Observation


def at(teacher: Observation, student: Observation) -> Tensor:
    """Attention transfer: the distance of the spatial attention maps.

    The attention map of an image, sum_c A_c^2, is scaled to unit length; a map of zeros stays
    zero. The squared difference is summed over positions and averaged over images and pairs of
    stages. Works for any widths. The distance lies between 0 and 2.

    Zagoruyko and Komodakis, ICLR 2017, eq. 2. There it is the norm of the difference, whose
    gradient is infinite where the maps agree; here it is the norm squared.
    """
    pairs = comparable_pairs("at", teacher, student, grids=True)
    attentions = ((_attention(map_t), _attention(map_s)) for map_t, map_s in pairs)
    return average((a - b).square().sum(1).mean() for a, b in attentions)


@cached
def _attention(maps: Tensor) -> Tensor:
    return unit_rows(torch.linalg.vector_norm(rescaled(maps), dim=1).square().flatten(1))


def nst(teacher: Observation, student: Observation) -> Tensor:
    """Neuron selectivity transfer: the distance of the distributions of the channels' maps.

    The squared maximum mean discrepancy between the channels of teacher and student, each
    channel's map scaled to unit length, with the polynomial kernel k(x, y) = (x . y)^2. It is
    averaged over images and pairs of stages. Works for any widths. The distance lies between 0 and
    2.

    Huang and Wang, 2017 (arXiv 1707.01219), with d = 2 and c = 0.
    """
    pairs = comparable_pairs("nst", teacher, student, grids=True)
    return average(_discrepancy(map_t, map_s).mean() for map_t, map_s in pairs)


def _discrepancy(teacher: Tensor, student: Tensor) -> Tensor:
    """Return B discrepancies, from the HW x HW moments where these are smaller than the kernels."""
    if teacher.shape[2:].numel() ** 2 < teacher.shape[1] * student.shape[1]:
        return (_moments(teacher) - _moments(student)).square().sum((1, 2))
    (kernel_t, squares_t), (kernel_s, squares_s) = _self_kernel(teacher), _self_kernel(student)
    inner = rescaled(teacher).flatten(2) @ rescaled(student).flatten(2).mT
    return kernel_t + kernel_s - 2 * _kernel(inner, squares_t, squares_s)


@cached
def _moments(maps: Tensor) -> Tensor:
    rows = unit_rows(maps.flatten(2))
    return rows.mT @ rows / rows.shape[1]


@cached
def _self_kernel(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of k over all pairs of channels, B, and squared lengths, B x C."""
    inner = channel_gram(maps)
    lengths = inner.diagonal(dim1=1, dim2=2)
    return _kernel(inner, lengths, lengths), lengths


def _kernel(inner: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return the mean of the squared cosines, B, from inner products and squared lengths."""
    left, right = (1 / (lengths + (lengths == 0)) for lengths in (first, second))
    squares = left[:, None] @ inner.square() @ right[:, :, None]
    return squares.flatten() / inner[0].numel()


def cwd(teacher: Observation, student: Observation, temperature: float = 4.0) -> Tensor:
    """Channel-wise distillation: the divergence of each channel's distribution over positions.

    T^2 KL(softmax(A_T / T) || softmax(A_S / T)), the softmax over the H W positions of a channel,
    averaged over channels, images and pairs of stages. The temperature T is above zero. The
    distance is at least 0, in nats.

    Shu et al., ICCV 2021. There it is of the class scores of a segmentation; for other maps
    a 1x1 convolution widens the student's, as the adapter does here in a loss.
    """
    pairs = comparable_pairs("cwd", teacher, student, widths=True, grids=True)
    logs = (
        (_positions(map_t, temperature), _positions(map_s, temperature)) for map_t, map_s in pairs
    )
    return temperature**2 * average(
        kl_div(output, target, reduction="batchmean", log_target=True) for target, output in logs
    )


@cached
def _positions(maps: Tensor, temperature: float) -> Tensor:
    """Return the log-probabilities of the positions of each channel, BC x HW."""
    return (maps.flatten(2).flatten(0, 1) / temperature).log_softmax(1)

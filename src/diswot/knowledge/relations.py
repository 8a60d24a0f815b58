"""Distances of the relations among images or rows, for any widths.

Of more than 256 rows, such as the pixels of a batch, 256 are compared with each other. `rkd`, `pkt`
and `cc` compare the `head_input`, N x D, and raise a `UserError` if two detectors have different
anchors. `sp` and `cka` compare the `stages`, and raise one if their numbers differ.

Letters: B images, N rows, D features that enter the classifier.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import mse_loss, smooth_l1_loss

from diswot.knowledge.rows import check_rows
from diswot.knowledge.stages import (
    at_least_float32,
    average,
    cached,
    comparable_pairs,
    in_safe_range,
    relation_matrix,
)
from diswot.observation.functional import gram, unit_rows
from diswot.observation.observe import Observation

_COMPARED_ROWS = 256  # angles of N rows are N x N x N


def sp(teacher: Observation, student: Observation) -> Tensor:
    """Similarity-preserving distillation: the difference of the images' similarities, by stage.

    R is the B x B Gram matrix of the flattened maps, rows scaled to unit length; the result is
    ||R_T - R_S||_F^2 / B^2, averaged over pairs of stages. `relation` is the same on the last maps
    alone. The distance lies between 0 and 4 / B.

    Tung and Mori, ICCV 2019, who sum over pairs of stages.
    """
    pairs = comparable_pairs("sp", teacher, student)
    return average(mse_loss(relation_matrix(b), relation_matrix(a)) for a, b in pairs)


def cka(teacher: Observation, student: Observation) -> Tensor:
    """One minus the linear centred kernel alignment of the maps, averaged over pairs of stages.

    It compares the geometry of the images' flattened maps and does not depend on mean or scale.
    The estimate is the plain one, which is biased towards 0 with few images and many features. The
    distance lies between 0 and 1.

    Kornblith et al., ICML 2019, with linear kernels.
    """
    pairs = comparable_pairs("cka", teacher, student)
    return average(1 - linear_cka(map_t, map_s) for map_t, map_s in pairs)


def linear_cka(first: Tensor, second: Tensor) -> Tensor:
    """Return the linear centred kernel alignment of two sets of features, B x ... each.

    Returns:
        A scalar between 0 and 1; 0 if all images have the same features to within rounding.
    """
    one, other = (unit_rows(_centred_gram(features).flatten()) for features in (first, second))
    return (one * other).sum()


_LEAST_LEFT = 0.02  # share of the squares, for the mean to be subtracted afterwards


@cached
def _centred_gram(features: Tensor) -> Tensor:
    """Return the inner products of the features less their mean, B x B.

    They are computed from the plain inner products. If so little of these is left that rounding
    would show, the mean is subtracted from the features.
    """
    plain = gram(in_safe_range(features)).double()
    centred = plain - plain.mean(0) - plain.mean(1, keepdim=True) + plain.mean()
    if centred.detach().trace() > _LEAST_LEFT * plain.detach().trace():
        return centred.to(features.dtype)
    features = in_safe_range(features)
    mean = features.mean(0)
    centred = gram(features - mean)
    noise = 8 * torch.finfo(features.dtype).eps
    left, lost = centred.detach().trace(), len(features) * mean.detach().square().sum()
    return centred * (left > noise**2 * lost)


def rkd(
    teacher: Observation, student: Observation, distance: float = 1.0, angle: float = 2.0
) -> Tensor:
    """Relational knowledge distillation: the difference of distances and angles among rows.

    Distances of all pairs of rows of the `head_input`, N x D, are divided by the mean of those
    above zero; angles are the cosines of all triples. Both are compared by Huber's loss, averaged
    over pairs and over triples, and weighted by `distance` and `angle`. The distance is at least
    0.

    Park et al., CVPR 2019. The weights keep the paper's ratio of one to two.
    """
    check_rows("rkd", teacher, student, "head_input")
    (lengths_t, angles_t), (lengths_s, angles_s) = (
        _geometry(_compared_rows(seen)) for seen in (teacher, student)
    )
    return distance * smooth_l1_loss(lengths_s, lengths_t) + angle * smooth_l1_loss(
        angles_s, angles_t
    )


def _compared_rows(seen: Observation) -> Tensor:
    """Return the inputs of the classifier; of many rows, evenly spaced ones."""
    rows = at_least_float32(seen.head_input)
    if len(rows) <= _COMPARED_ROWS:
        return rows
    return rows[torch.linspace(0, len(rows) - 1, _COMPARED_ROWS).long().to(rows.device)]


@cached
def _geometry(points: Tensor) -> tuple[Tensor, Tensor]:
    """Return distances of all pairs over their mean, N x N, and cosines at triples, N x N x N."""
    points = in_safe_range(points)
    lines = points[None] - points[:, None]
    lengths: Tensor = torch.linalg.vector_norm(lines, dim=2)
    mean = lengths.sum() / (lengths > 0).sum().clamp_min(1)
    directions = lines / lengths.masked_fill(lengths == 0, 1)[:, :, None]
    return lengths / mean.masked_fill(mean == 0, 1), directions @ directions.mT


def pkt(teacher: Observation, student: Observation) -> Tensor:
    """Probabilistic knowledge transfer: the divergence of the neighbourhoods of the rows, in nats.

    Among the other rows j of the `head_input`, p(j | i) is proportional to (1 + cos(i, j)) / 2.
    The result is KL(p_T || p_S), averaged over i. The distance is at least 0.

    Passalis and Tefas, ECCV 2018, who sum over i. As published, 1e-7 is added to each probability
    before the logarithm.
    """
    check_rows("pkt", teacher, student, "head_input")
    p, q = _neighbours(teacher), _neighbours(student)
    return (p * ((p + 1e-7).log() - (q + 1e-7).log())).sum(1).mean()


def _neighbours(observation: Observation) -> Tensor:
    """Return the probabilities of each row's neighbours, N x N; zero for itself."""
    points = unit_rows(_compared_rows(observation))
    closeness = (1 + points @ points.T) / 2
    near = closeness > 8 * torch.finfo(points.dtype).eps  # opposite rows leave rounding errors
    closeness = closeness * near * (1 - torch.eye(len(points)).to(closeness))
    total = closeness.sum(1, keepdim=True)
    return closeness / total.masked_fill(total == 0, 1)


def cc(teacher: Observation, student: Observation, gamma: float = 0.4, order: int = 2) -> Tensor:
    """Correlation congruence: the difference of a kernel of all pairs of rows.

    Rows of the `head_input`, N x D, are scaled to unit length. The kernel is the Taylor series of
    the Gaussian up to an order, sum_p exp(-2 gamma) (2 gamma)^p (x . y)^p / p!. The squared
    difference is averaged over pairs. The distance is at least 0.

    Peng et al., ICCV 2019, who first map both networks to one width by a learned layer; the kernel
    does not need it.
    """
    check_rows("cc", teacher, student, "head_input")
    kernel_t, kernel_s = (
        _gaussian(unit_rows(_compared_rows(seen)), gamma, order) for seen in (teacher, student)
    )
    return mse_loss(kernel_s, kernel_t)


def _gaussian(points: Tensor, gamma: float, order: int) -> Tensor:
    cosines = points @ points.T
    powers = ((2 * gamma * cosines) ** p / math.factorial(p) for p in range(order + 1))
    return math.exp(-2 * gamma) * torch.stack(list(powers)).sum(0)

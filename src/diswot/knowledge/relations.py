"""What the batch knows, in other words: samples among samples, whatever the width."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import mse_loss, smooth_l1_loss

from diswot.knowledge.stages import average, matched, moderate, once, sample_gram, single
from diswot.observation.functional import gram, unit_rows
from diswot.observation.observe import Observation


def sp(teacher: Observation, student: Observation) -> Tensor:
    """Similarity-preserving distillation: which samples look alike at each stage, compared.

    The B x B Gram matrix of the flattened maps, rows scaled to unit length; squared Frobenius
    norm of the difference over B^2, mean over pairs of stages, where the paper sums. Tung and
    Mori, ICCV 2019. `relation` is the same on the last maps alone.

    Returns:
        A scalar between 0 and 4 / B.
    """
    pairs = matched("sp", teacher, student)
    return average(mse_loss(_alike(theirs), _alike(ours)) for ours, theirs in pairs)


def _alike(maps: Tensor) -> Tensor:
    return unit_rows(sample_gram(maps))


def cka(teacher: Observation, student: Observation) -> Tensor:
    """One minus the linear centred kernel alignment of the maps, mean over pairs of stages.

    Kornblith et al., ICML 2019, with linear kernels, on flattened maps. It measures the samples'
    geometry without their mean or scale. The estimate is the plain one: with few samples and many
    features it leans towards alike.

    Returns:
        A scalar between 0 and 1.
    """
    pairs = matched("cka", teacher, student)
    return average(1 - linear_cka(ours, theirs) for ours, theirs in pairs)


def linear_cka(first: Tensor, second: Tensor) -> Tensor:
    """Linear centred kernel alignment, a scalar, of features B x ... and B x ...'.

    It is 0 where all samples have the same features, to within rounding.
    """
    one, other = (unit_rows(_centred_gram(features).flatten()) for features in (first, second))
    return (one * other).sum()


_LEAST_LEFT = 0.02  # share of the squares, for the mean to be taken off afterwards


@once
def _centred_gram(features: Tensor) -> Tensor:
    """Inner products of the features less their mean, B x B.

    From the plain inner products, which other distances have use for, unless so little is left of
    them that rounding would show.
    """
    plain = sample_gram(features).double()
    centred = plain - plain.mean(0) - plain.mean(1, keepdim=True) + plain.mean()
    if centred.detach().trace() > _LEAST_LEFT * plain.detach().trace():
        return centred.to(features.dtype)
    features = moderate(features)
    mean = features.mean(0)
    centred = gram(features - mean)
    noise = 8 * torch.finfo(features.dtype).eps
    left, lost = centred.detach().trace(), len(features) * mean.detach().square().sum()
    return centred * (left > noise**2 * lost)


def rkd(
    teacher: Observation, student: Observation, distance: float = 1.0, angle: float = 2.0
) -> Tensor:
    """Relational knowledge: the distances and the angles among the samples, compared.

    What enters the classifier, B x D; distances of all pairs over the mean of those above zero,
    and cosines of the angles of all triples; Huber's loss, mean over pairs and over triples. Park
    et al., CVPR 2019. The weights keep the paper's ratio of one to two.

    Args:
        teacher: Its `pooled` is used.
        student: Likewise.
        distance: Weight of the distances.
        angle: Weight of the angles.
    """
    ours, theirs = (_geometry(single(seen.pooled)) for seen in (teacher, student))
    return distance * _huber(ours[0], theirs[0]) + angle * _huber(ours[1], theirs[1])


@once
def _geometry(points: Tensor) -> tuple[Tensor, Tensor]:
    """Distances of all pairs over their mean, B x B, and cosines at all triples, B x B x B."""
    points = moderate(points)
    lines = points[None] - points[:, None]
    lengths: Tensor = torch.linalg.vector_norm(lines, dim=2)
    mean = lengths.sum() / (lengths > 0).sum().clamp_min(1)
    directions = lines / lengths.masked_fill(lengths == 0, 1)[:, :, None]
    return lengths / mean.masked_fill(mean == 0, 1), directions @ directions.mT


def _huber(teacher: Tensor, student: Tensor) -> Tensor:
    return smooth_l1_loss(student, teacher)


def pkt(teacher: Observation, student: Observation) -> Tensor:
    """Probabilistic knowledge transfer: who is whose neighbour, compared.

    What enters the classifier, B x D; among the other samples j, p(j | i) is in proportion to
    (1 + cos(i, j)) / 2; KL(p_T || p_S), mean over i, where the paper sums. Passalis and Tefas,
    ECCV 2018. As published, 1e-7 is added to every probability before the logarithm.

    Args:
        teacher: Its `pooled` is used.
        student: Likewise.
    """
    ours, theirs = _neighbours(teacher), _neighbours(student)
    return (ours * ((ours + 1e-7).log() - (theirs + 1e-7).log())).sum(1).mean()


def _neighbours(seen: Observation) -> Tensor:
    """Probabilities, B x B, of each row's neighbours; zero for itself."""
    points = unit_rows(single(seen.pooled))
    closeness = (1 + points @ points.T) / 2
    near = closeness > 8 * torch.finfo(points.dtype).eps  # of what is opposite rounding is left
    closeness = closeness * near * (1 - torch.eye(len(points)).to(closeness))
    total = closeness.sum(1, keepdim=True)
    return closeness / total.masked_fill(total == 0, 1)


def cc(teacher: Observation, student: Observation, gamma: float = 0.4, order: int = 2) -> Tensor:
    """Correlation congruence: a kernel of all pairs of samples, compared. Peng et al., ICCV 2019.

    What enters the classifier, B x D, rows scaled to unit length; the Gaussian kernel by its
    Taylor series, sum_p exp(-2 gamma) (2 gamma)^p (x . y)^p / p!; squared difference, mean over
    pairs. The paper first maps both to one width by a learned layer, which
    the kernel does not need.

    Args:
        teacher: Its `pooled` is used.
        student: Likewise.
        gamma: Of the kernel.
        order: Last power of the series.
    """
    ours, theirs = (
        _gaussian(unit_rows(single(seen.pooled)), gamma, order) for seen in (teacher, student)
    )
    return mse_loss(theirs, ours)


def _gaussian(points: Tensor, gamma: float, order: int) -> Tensor:
    cosines = points @ points.T
    powers = ((2 * gamma * cosines) ** p / math.factorial(p) for p in range(order + 1))
    return math.exp(-2 * gamma) * torch.stack(list(powers)).sum(0)

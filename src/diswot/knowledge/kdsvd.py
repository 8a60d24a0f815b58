"""The distance of the leading singular vectors of the maps, from stage to stage, over the `stages`.

Letters: B images, C channels, H x W positions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diswot.knowledge.channels import flows
from diswot.knowledge.stages import average, cached, channel_gram, comparable_pairs, rescaled
from diswot.observation.functional import unit_rows
from diswot.observation.observe import Observation

CANDIDATES = 4  # singular vectors of the student, of which the one most like the teacher's is taken
TINY = 1e-5  # share of the largest squared singular value that counts as zero


def kdsvd(teacher: Observation, student: Observation) -> Tensor:
    """Knowledge distillation by SVD: the distance of the flows of leading singular vectors.

    Of each image's map, as HW x C, take the first right singular vector v, which has C entries. Of
    the student take that of its first four that is most like the teacher's, up to sign. The flow
    from one stage to the next is exp(-(v_c - v'_d)^2 / 8), C x C'. The squared difference is
    summed and averaged over images and pairs of stages. If there is a single stage, the flow is to
    itself. Works for any grids. The distance is at least 0.

    Lee et al., ECCV 2018, with one vector, as published. A decomposition leaves signs open. Here
    the entries of the teacher's vector have a sum of at least zero, and so have the student's if
    the two are orthogonal. The gradient is that of the singular vectors; between equal singular
    values, where they have none, it is zero.

    Raises:
        UserError: The maps of a pair have different widths.
    """
    pairs = comparable_pairs("kdsvd", teacher, student, widths=True)
    vectors_t = [_first(map_t) for map_t, _ in pairs]
    vectors_s = [_most_like(map_s, v) for (_, map_s), v in zip(pairs, vectors_t, strict=True)]
    both = zip(flows(vectors_t), flows(vectors_s), strict=True)
    return average(_difference(*a, *b).mean() for a, b in both)


def _difference(first_t: Tensor, second_t: Tensor, first_s: Tensor, second_s: Tensor) -> Tensor:
    """Return the squared Frobenius norm of the difference of two flows, B, of vectors B x C x 1.

    The C x C' flows are never made: exp(-(v - w)^2 / 8) is a sum of products of powers of v and w.
    For entries up to 1, eight terms are exact to 1e-9. The computation is in float64, since the
    difference is small against the flows.
    """
    left = torch.cat((_powers(first_t), -_powers(first_s)), 2)
    right = torch.cat((_powers(second_t), _powers(second_s)), 2)
    return ((left.mT @ left) * (right.mT @ right)).sum((1, 2)).to(first_t.dtype)


@cached
def _powers(vectors: Tensor) -> Tensor:
    """Return exp(-v^2 / 8) (v / 2)^p / sqrt(p!) for p below eight, B x C x 8."""
    half = vectors.double() / 2
    powers = [(-half.square() / 2).exp()]
    for p in range(1, 8):
        powers.append(powers[-1] * half / math.sqrt(p))
    return torch.cat(powers, 2)


@cached
def _first(maps: Tensor) -> Tensor:
    """Return the teacher's vector, B x C x 1."""
    return _positive(right_vectors(maps, 1))


def _positive(vectors: Tensor) -> Tensor:
    return vectors * _sign(vectors.sum(1, keepdim=True))


def _most_like(maps: Tensor, teacher: Tensor) -> Tensor:
    """Return the student's vector, B x C x 1, of maps B x C x H x W.

    The squared cosines of one vector with several orthogonal ones sum to at most 1. So if that of
    the first is above a half, no other vector is needed. This shortcut is for maps without a graph.
    """
    if maps.requires_grad or not 1 < maps.shape[1] <= maps.shape[2:].numel():
        return _aligned(_positive(right_vectors(maps, CANDIDATES)), teacher)
    grams = channel_gram(maps)
    first, converged = dominant(grams)
    chosen = _aligned(first, teacher)
    rest = ~(converged & ((chosen * teacher).sum((1, 2)).square() > 0.5))
    if rest.any():
        candidates = _positive(leading(grams[rest], CANDIDATES))
        chosen[rest] = _aligned(candidates, teacher[rest])
    return chosen


def dominant(grams: Tensor) -> tuple[Tensor, Tensor]:
    """Return first eigenvectors by power iteration, which is faster than a decomposition.

    The matrices are positive semi-definite, B x C x C.

    Returns:
        The vectors, B x C x 1, and whether each converged to within rounding, B. One does not if
        the second eigenvalue is almost as large as the first.
    """
    images = grams.sum(2)
    for step in range(1, _POWERS):
        vectors = images / torch.linalg.vector_norm(images, dim=1, keepdim=True).clamp_min(_LEAST)
        images = (grams * vectors[:, None]).sum(2)  # faster than a batched product
        if step % 8 == 0 and (converged := _are_eigenvectors(vectors, images)).all():
            break
    return vectors[:, :, None], converged


_POWERS = 33  # the 8th power is often enough, and the 32nd is the last that is tried
_LEAST = 1e-30  # instead of a length of zero


def _are_eigenvectors(vectors: Tensor, images: Tensor) -> Tensor:
    """Whether vectors B x C are eigenvectors of matrices that map them to these images."""
    values = (vectors * images).sum(1, keepdim=True)
    errors: Tensor = torch.linalg.vector_norm(images - values * vectors, dim=1)
    return errors < 16 * torch.finfo(vectors.dtype).eps * values[:, 0]


def _aligned(vectors: Tensor, teacher: Tensor) -> Tensor:
    """Return that of B x C x k vectors that is most like the teacher's, with its sign."""
    cosines = (vectors * teacher).sum(1, keepdim=True)
    best = cosines.abs().argmax(2, keepdim=True)
    chosen = vectors.gather(2, best.expand(-1, vectors.shape[1], -1))
    return chosen * _sign(cosines.gather(2, best))


def _sign(values: Tensor) -> Tensor:
    return torch.where(values.detach() < 0, -1.0, 1.0).to(values.dtype)


@cached
def right_vectors(maps: Tensor, count: int) -> Tensor:
    """Return leading right singular vectors of maps as HW x C matrices, in columns, B x C x count.

    They are computed from the Gram matrix of the channels or of the positions, whichever are fewer,
    and are fewer if there are fewer of these. A vector is zero if the singular value is zero.
    """
    if maps.shape[1] <= maps.shape[2:].numel():
        return leading(channel_gram(maps), count)
    rows = rescaled(maps).flatten(2)
    return unit_rows((rows @ leading(rows.mT @ rows, count)).mT).mT


def leading(grams: Tensor, count: int) -> Tensor:
    """Return leading eigenvectors with the gradient of first-order perturbation theory.

    The gradient is dv_i = sum_j v_j (v_j . dG v_i) / (l_i - l_j) over all j with another
    eigenvalue, so it stays finite where eigenvalues meet. The matrices G are positive
    semi-definite, B x C x C.

    Returns:
        Vectors in columns, B x C x count; zero if the eigenvalue is zero.
    """
    values, vectors = torch.linalg.eigh(grams.detach())
    values, vectors = values.flip(1), vectors.flip(2)
    leaders: Tensor = vectors[:, :, :count]
    floor = TINY * values[:, None, :1]
    if grams.requires_grad:
        gaps = values[:, None, :count] - values[:, :, None]
        slopes = torch.where(gaps.abs() > floor, 1 / gaps.masked_fill(gaps == 0, 1), 0)
        change = vectors.mT @ ((grams - grams.detach()) @ leaders)  # zero, with a gradient
        leaders = leaders + vectors @ (change * slopes)
    return leaders.mul(values[:, None, :count] > floor)

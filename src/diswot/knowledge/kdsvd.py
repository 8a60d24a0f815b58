"""What the leading singular vectors of the feature maps say, and how they flow."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diswot.knowledge.channels import flows
from diswot.knowledge.stages import average, channel_gram, matched, moderate, once
from diswot.observation.functional import unit_rows
from diswot.observation.observe import Observation

CANDIDATES = 4  # singular vectors of the student among which the teacher's finds its like
TINY = 1e-5  # share of the largest squared singular value that counts as none


def kdsvd(teacher: Observation, student: Observation) -> Tensor:
    """Singular vectors of the maps, and their flow from stage to stage, compared.

    Of each sample's map, as HW x C, the first right singular vector v, which has a number a
    channel. The student's is the one of its first four that is most like the teacher's, up to
    sign. From one stage to the next goes exp(-(v_c - v'_d)^2 / 8), C x C'; squared difference,
    summed, mean of samples and pairs of stages. Lee et al., ECCV 2018, with one vector, as
    published. Signs, which a decomposition leaves open, are set: the teacher's vector has a sum
    of at least zero, and so has the student's where the two are at right angles. Where there is a
    single stage, it is the flow to itself.

    Slopes are those of the singular vectors; between singular values that are equal they have
    none and are taken as zero. Works for any grids.

    Raises:
        UserError: A pair of maps differs in width.
    """
    pairs = matched("kdsvd", teacher, student, widths=True)
    ours = [_first(map_t) for map_t, _ in pairs]
    theirs = [_most_like(map_s, v) for (_, map_s), v in zip(pairs, ours, strict=True)]
    both = zip(flows(ours), flows(theirs), strict=True)
    return average(_unlike(*a, *b).mean() for a, b in both)


def _unlike(first: Tensor, second: Tensor, other: Tensor, following: Tensor) -> Tensor:
    """Squared Frobenius norm of the difference of two flows, B, of vectors B x C x 1.

    The C x C' flows are never made: exp(-(v - w)^2 / 8) is a sum of products of powers of v and
    of w, which for numbers up to 1 has ended after eight terms, to within 1e-9. In double
    precision, for the difference is small against the flows.
    """
    left = torch.cat((_powers(first), -_powers(other)), 2)
    right = torch.cat((_powers(second), _powers(following)), 2)
    return ((left.mT @ left) * (right.mT @ right)).sum((1, 2)).to(first.dtype)


@once
def _powers(vectors: Tensor) -> Tensor:
    """exp(-v^2 / 8) (v / 2)^p / sqrt(p!) for p below eight, B x C x 8."""
    half = vectors.double() / 2
    powers = [(-half.square() / 2).exp()]
    for p in range(1, 8):
        powers.append(powers[-1] * half / math.sqrt(p))
    return torch.cat(powers, 2)


@once
def _first(maps: Tensor) -> Tensor:
    """The teacher's vector, B x C x 1."""
    return _positive(right_vectors(maps, 1))


def _positive(vectors: Tensor) -> Tensor:
    return vectors * _sign(vectors.sum(1, keepdim=True))


def _most_like(maps: Tensor, teacher: Tensor) -> Tensor:
    """The student's vector, B x C x 1, of maps B x C x H x W.

    Squared cosines of one vector with several at right angles sum to at most 1, so that where the
    first one's is above a half, none is more alike, and no other is needed. Without a graph.
    """
    if maps.requires_grad or not 1 < maps.shape[1] <= maps.shape[2:].numel():
        return _aligned(_positive(right_vectors(maps, CANDIDATES)), teacher)
    grams = channel_gram(maps)
    first, found = dominant(grams)
    chosen = _aligned(first, teacher)
    rest = ~(found & ((chosen * teacher).sum((1, 2)).square() > 0.5))
    if rest.any():
        candidates = _positive(leading(grams[rest], CANDIDATES))
        chosen[rest] = _aligned(candidates, teacher[rest])
    return chosen


def dominant(grams: Tensor) -> tuple[Tensor, Tensor]:
    """The first eigenvector by powers, which is quicker than a decomposition, and whether it is.

    Args:
        grams: Positive semi-definite matrices, B x N x N.

    Returns:
        B x N x 1, and B: whether it is one to within rounding, which it is not where the second
        eigenvalue is almost as large.
    """
    images = grams.sum(2)
    for step in range(1, _POWERS):
        vectors = images / torch.linalg.vector_norm(images, dim=1, keepdim=True).clamp_min(_LEAST)
        images = (grams * vectors[:, None]).sum(2)  # quicker than a batched product
        if step % 8 == 0 and (found := _belongs(vectors, images)).all():
            break
    return vectors[:, :, None], found


_POWERS = 33  # the 8th power is often enough, and the 32nd is the last that is tried
_LEAST = 1e-30  # instead of a length of zero


def _belongs(vectors: Tensor, images: Tensor) -> Tensor:
    """Whether vectors B x N are eigenvectors of matrices with these images, to within rounding."""
    values = (vectors * images).sum(1, keepdim=True)
    errors: Tensor = torch.linalg.vector_norm(images - values * vectors, dim=1)
    return errors < 16 * torch.finfo(vectors.dtype).eps * values[:, 0]


def _aligned(vectors: Tensor, teacher: Tensor) -> Tensor:
    """The one of B x C x k vectors that is most like the teacher's, B x C x 1, with its sign."""
    cosines = (vectors * teacher).sum(1, keepdim=True)
    best = cosines.abs().argmax(2, keepdim=True)
    chosen = vectors.gather(2, best.expand(-1, vectors.shape[1], -1))
    return chosen * _sign(cosines.gather(2, best))


def _sign(values: Tensor) -> Tensor:
    return torch.where(values.detach() < 0, -1.0, 1.0).to(values.dtype)


@once
def right_vectors(maps: Tensor, count: int) -> Tensor:
    """Leading right singular vectors of maps B x C x H x W, as HW x C, in columns: B x C x k.

    At most `count`, and no more than there are channels or positions. Those whose singular value
    is nothing are zero. Computed on the side of channels or of positions, whichever are fewer.
    """
    if maps.shape[1] <= maps.shape[2:].numel():
        return leading(channel_gram(maps), count)
    rows = moderate(maps).flatten(2)
    return unit_rows((rows @ leading(rows.mT @ rows, count)).mT).mT


def leading(grams: Tensor, count: int) -> Tensor:
    """Leading eigenvectors of B positive semi-definite matrices, in columns: B x N x k.

    Their slope is that of first-order perturbation, dv_i = sum_j v_j (v_j . dG v_i) / (l_i - l_j)
    over all j with another eigenvalue; it stays finite where eigenvalues meet.
    """
    values, vectors = torch.linalg.eigh(grams.detach())
    values, vectors = values.flip(1), vectors.flip(2)
    leaders: Tensor = vectors[:, :, :count]
    floor = TINY * values[:, None, :1]
    if grams.requires_grad:
        gaps = values[:, None, :count] - values[:, :, None]
        slopes = torch.where(gaps.abs() > floor, 1 / gaps.masked_fill(gaps == 0, 1), 0)
        change = vectors.mT @ ((grams - grams.detach()) @ leaders)  # zero, but it has a slope
        leaders = leaders + vectors @ (change * slopes)
    return leaders.mul(values[:, None, :count] > floor)

"""Tensor maths behind the knowledge distances. Imports only torch.

Letters: B images, N rows (in classification a row is an image), K classes, C channels, D features
that enter the classifier, H x W positions. Every function is pure and differentiable.
"""

from __future__ import annotations

import torch
from torch import Tensor


def unit_rows(rows: Tensor) -> Tensor:
    """Divide each row, ... x D, by its Euclidean length; a row of zeros stays zero.

    Rows are scaled by their largest entry first. So the tiny gradients of a saturated softmax
    neither underflow nor meet an epsilon, and the direction of any non-zero row survives. No
    gradient flows into a row of zeros, which has no direction.
    """
    largest = rows.detach().abs().amax(-1, keepdim=True)
    kind = torch.finfo(rows.dtype)
    scaled = rows / (_divisor(largest) if rows.requires_grad else largest.clamp_min(kind.tiny))
    length: Tensor = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
    return scaled / length.clamp_min(kind.eps / 2)  # shorter than any but a row of zeros


def _divisor(largest: Tensor) -> Tensor:
    """Return sizes that are safe to divide by: infinite where a size is zero."""
    tiny = torch.finfo(largest.dtype).tiny
    return largest.clamp_min(tiny).masked_fill(largest == 0, torch.inf)


def gram(features: Tensor) -> Tensor:
    """Return the inner products of all pairs of images, B x B, of features B x ....

    The result does not depend on the order of the features, so they are read in the order in which
    they lie in memory.
    """
    flat = in_memory_order(features).flatten(1)
    return flat @ flat.T


def in_memory_order(features: Tensor) -> Tensor:
    """Permute a map that is stored channels last to B x H x W x C; return any other unchanged.

    For computations that do not depend on the order of the features: reading memory in order is
    several times as fast. Nothing is copied.
    """
    if features.ndim == 4 and features.is_contiguous(memory_format=torch.channels_last):
        return features.permute(0, 2, 3, 1)
    return features


def relation_matrix(features: Tensor) -> Tensor:
    """Return the Gram matrix of the images, B x B, each row divided by its length.

    One common factor of all features changes nothing; huge and tiny features are rescaled first.
    """
    return unit_rows(gram(rescaled(features, magnitude(features))))


def magnitude(features: Tensor) -> Tensor:
    """Return the largest absolute value as a scalar without a gradient."""
    low, high = in_memory_order(features.detach()).aminmax()
    return torch.maximum(-low, high)


def rescaled(features: Tensor, largest: Tensor) -> Tensor:
    """Divide features by their largest absolute value, a scalar, if it is above 1e6 or below 1e-6.

    For computations that do not depend on a common factor: squares of the maps of a network
    without normalisation would overflow. The divisor has no gradient. Features within the range
    are returned as they are, without a copy.
    """
    return features if 1e-6 <= float(largest) <= 1e6 else features / _divisor(largest)


def class_similarity(class_gradient: Tensor) -> Tensor:
    """Return the cosines between the rows of a class gradient, K x D: K x K."""
    rows = unit_rows(class_gradient)
    return rows @ rows.T


def rank_one_distance(teacher: Tensor, student: Tensor, eps: float = 0.0) -> Tensor:
    """Return the distance of the channel-correlation matrices of two class gradients.

    For each class with gradient g (length D), take the D x D matrix g g^T. Divide each row by its
    length, or by `eps` where the length is smaller. Sum the squared differences of teacher and
    student, divide by D and average over classes.

    Row i of the scaled matrix is s_i u, with u = g / |g| and s_i = g_i |g| / max(|g_i| |g|, eps).
    So the sum over D is, exactly and in O(KD),
    mean(s_T^2) + mean(s_S^2) - 2 mean(s_T s_S) cos(g_T, g_S). With eps = 0, s is the sign of g.

    Args:
        teacher: K x D.
        student: K x D.
        eps: Length below which a row of g g^T is not scaled to unit length; 0 scales all rows.

    Returns:
        A scalar: 0 for equal directions, 4 at most.
    """
    rows_t, rows_s = _row_lengths(teacher, eps), _row_lengths(student, eps)
    squares = rows_t.square().mean(-1) + rows_s.square().mean(-1)
    cosine = (unit_rows(teacher) * unit_rows(student)).sum(-1)
    return (squares - 2 * (rows_t * rows_s).mean(-1) * cosine).mean()


def _row_lengths(gradient: Tensor, eps: float) -> Tensor:
    """Return the signed lengths s of the scaled rows of g g^T, K x D.

    An absolute value is 1, or smaller where the row is shorter than eps. Gradients whose squares
    would overflow are first scaled down to 1e15.
    """
    if not eps:
        return gradient.sign()
    largest = gradient.detach().abs().amax(-1, keepdim=True)
    gradient = gradient / (largest / 1e15).clamp_min(1)
    length: Tensor = torch.linalg.vector_norm(gradient, dim=-1, keepdim=True)
    rows = gradient * length
    return rows / rows.abs().clamp_min(eps)

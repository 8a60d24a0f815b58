"""Tensor maths behind the knowledge distances. Imports only torch.

Letters: B batch, K classes, C channels, D features. Every function is pure and differentiable.
"""

from __future__ import annotations

import torch
from torch import Tensor


def unit_rows(rows: Tensor) -> Tensor:
    """Divide each row by its Euclidean length; a row of zeros stays zero.

    Rows are scaled by their largest entry first, so that the tiny gradients of a saturated
    softmax neither underflow nor meet an epsilon: the direction of any non-zero row survives. No
    gradient flows into a row of zeros, which has no direction.

    Args:
        rows: ... x D.
    """
    largest = rows.detach().abs().amax(-1, keepdim=True)
    kind = torch.finfo(rows.dtype)
    scaled = rows / (_size(largest) if rows.requires_grad else largest.clamp_min(kind.tiny))
    length: Tensor = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
    return scaled / length.clamp_min(kind.eps / 2)  # shorter than any but a row of zeros


def _size(largest: Tensor) -> Tensor:
    """A safe divisor: large enough to divide by, and infinite where there is only zero."""
    tiny = torch.finfo(largest.dtype).tiny
    return largest.clamp_min(tiny).masked_fill(largest == 0, torch.inf)


def gram(features: Tensor) -> Tensor:
    """Inner products of all pairs of samples, B x B, of features B x ... (flattened).

    The order of the features does not matter: a map laid out channels last is taken as it lies.
    """
    flat = as_it_lies(features).flatten(1)
    return flat @ flat.T


def as_it_lies(features: Tensor) -> Tensor:
    """A map laid out channels last as B x H x W x C, anything else as it is; no copy.

    For what does not depend on the order of the features: walking through memory in order is
    several times as quick.
    """
    if features.ndim == 4 and features.is_contiguous(memory_format=torch.channels_last):
        return features.permute(0, 2, 3, 1)
    return features


def relation_matrix(features: Tensor) -> Tensor:
    """Sample relations, B x B: the Gram matrix of B x ... features with rows of unit length.

    One scale for all features changes nothing, so it is first made a moderate one.
    """
    return unit_rows(gram(moderate(features)))


def magnitude(features: Tensor) -> Tensor:
    """The largest absolute value, a constant scalar."""
    low, high = as_it_lies(features.detach()).aminmax()
    return torch.maximum(-low, high)


def moderate(features: Tensor, largest: Tensor | None = None) -> Tensor:
    """The features as they are, or over the largest, held constant, if they are huge or tiny.

    For what does not depend on scale: squares of the maps of a network without normalisation
    would overflow. Features between 1e-6 and 1e6 are not copied.

    Args:
        features: Of any shape.
        largest: Their `magnitude`, if it is known.
    """
    largest = magnitude(features) if largest is None else largest
    return features if 1e-6 <= float(largest) <= 1e6 else features / _size(largest)


def class_similarity(class_gradient: Tensor) -> Tensor:
    """Cosines between the classes' gradient rows, K x K, of a class gradient K x C."""
    rows = unit_rows(class_gradient)
    return rows @ rows.T


def rank_one_distance(teacher: Tensor, student: Tensor, eps: float = 0.0) -> Tensor:
    """Distance of channel-correlation matrices of class gradients, averaged over classes.

    For each class with gradient g (length C) take the C x C matrix g g^T and divide each row by
    its length, or by `eps` where the length is below; sum the squared difference of teacher and
    student and divide by C. Row i of the scaled matrix is s_i u, with u = g / |g| and
    s_i = g_i |g| / max(|g_i| |g|, eps), so the sum is, exactly and in O(KC),
    mean(s_T^2) + mean(s_S^2) - 2 mean(s_T s_S) cos(g_T, g_S). Without eps, s is the sign.

    Args:
        teacher: K x C.
        student: K x C.
        eps: Smallest length of a row of g g^T that is scaled to one.

    Returns:
        A scalar, 0 for equal directions, at most 4.
    """
    rows_t, rows_s = _row_lengths(teacher, eps), _row_lengths(student, eps)
    own = rows_t.square().mean(-1) + rows_s.square().mean(-1)
    cosine = (unit_rows(teacher) * unit_rows(student)).sum(-1)
    return (own - 2 * (rows_t * rows_s).mean(-1) * cosine).mean()


def _row_lengths(gradient: Tensor, eps: float) -> Tensor:
    """Signed lengths s, K x C, of the scaled rows of g g^T: at most 1, and below eps smaller.

    Rows of huge gradients, whose squares would overflow, are first brought down to 1e15.
    """
    if not eps:
        return gradient.sign()
    largest = gradient.detach().abs().amax(-1, keepdim=True)
    gradient = gradient / (largest / 1e15).clamp_min(1)
    length: Tensor = torch.linalg.vector_norm(gradient, dim=-1, keepdim=True)
    rows = gradient * length
    return rows / rows.abs().clamp_min(eps)

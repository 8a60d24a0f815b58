"""What the feature maps say of channels: which of them respond together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d, mse_loss

from diswot.knowledge.stages import average, channel_gram, matched, moderate, once
from diswot.observation.functional import unit_rows
from diswot.observation.observe import Observation


def flows(maps: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Each stage with the next; a single stage with itself."""
    return list(pairwise(maps)) or [(maps[0], maps[0])]


def fsp(teacher: Observation, student: Observation) -> Tensor:
    """Flow of solution procedure: how channels lead to those of the next stage, compared.

    The C x C' inner products over positions of the maps of two stages, over H W, the larger map
    max-pooled to the smaller grid; squared difference, here the mean over entries, of samples
    and pairs of stages. Yim et al., CVPR 2017, eq. 1 and 2. The paper takes the first and the
    last map of one resolution; here it is the ends of two stages that follow each other. Where
    there is a single stage, it is the flow from its end to itself.

    Raises:
        UserError: A pair of maps differs in width.
    """
    pairs = matched("fsp", teacher, student, widths=True)
    ours, theirs = (map(_flow, flows(maps)) for maps in zip(*pairs, strict=True))
    return average(mse_loss(b, a) for a, b in zip(ours, theirs, strict=True))


def _flow(ends: tuple[Tensor, Tensor]) -> Tensor:
    first, second = ends
    grid = tuple(map(min, first.shape[2:], second.shape[2:]))
    first, second = (m if m.shape[2:] == grid else _largest(m, *grid) for m in ends)
    return first.flatten(2) @ second.flatten(2).mT / (grid[0] * grid[1])


@once
def _largest(maps: Tensor, rows: int, columns: int) -> Tensor:
    """The largest value of the cells that overlap each cell of a smaller grid."""
    if maps.shape[2:] != (2 * rows, 2 * columns):
        pooled: Tensor = adaptive_max_pool2d(maps, (rows, columns))
        return pooled
    maps = torch.maximum(maps[:, :, ::2], maps[:, :, 1::2])  # several times as quick
    return torch.maximum(maps[..., ::2], maps[..., 1::2])


def ickd(teacher: Observation, student: Observation) -> Tensor:
    """Inter-channel correlation: which channels are alike, compared. Liu et al., ICCV 2021.

    For each sample the C x C inner products of the channels' maps, rows scaled to unit length, as
    in the published code; squared difference, summed, over C, mean of samples and of pairs of
    stages, of which the row takes the last, as the paper does. Works for any grids.

    Returns:
        A scalar between 0 and 4.

    Raises:
        UserError: A pair of maps differs in width.
    """
    pairs = matched("ickd", teacher, student, widths=True)
    return average(_unlike(ours, theirs) for ours, theirs in pairs)


def _unlike(teacher: Tensor, student: Tensor) -> Tensor:
    """Squared difference of the scaled rows of F F^T, mean of B x C, of maps F with C channels.

    Where there are fewer positions than channels it is n_T + n_S - 2 cos, and the C x C matrices
    are never made: the inner product of row c of F F^T and of H H^T is f_c (F^T H) h_c^T.
    """
    if max(maps.shape[2:].numel() for maps in (teacher, student)) >= teacher.shape[1]:
        return mse_loss(_alike(student), _alike(teacher)) * teacher.shape[1]
    teacher, student = (moderate(maps).flatten(2) for maps in (teacher, student))
    teacher_rows, student_rows = unit_rows(teacher), unit_rows(student)
    inner = ((teacher_rows @ (teacher.mT @ student)) * student_rows).sum(2)
    ours = ((teacher_rows @ (teacher.mT @ teacher)) * teacher_rows).sum(2)
    theirs = ((student_rows @ (student.mT @ student)) * student_rows).sum(2)
    there = (ours > 0) & (theirs > 0)
    lengths = torch.where(there, ours * theirs, 1).sqrt()
    cosine = torch.where(there, inner / lengths, 0)
    return ((ours > 0).to(cosine) + (theirs > 0).to(cosine) - 2 * cosine).mean()


@once
def _alike(maps: Tensor) -> Tensor:
    """B x C x C, rows of unit length."""
    return unit_rows(channel_gram(maps))

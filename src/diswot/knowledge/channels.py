"""Distances of the channels' correlations over the `stages`: which channels respond together.

Both raise a `UserError` if the maps of a pair have different widths.

Letters: B images, C channels, H x W positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d, mse_loss

from diswot.knowledge.stages import average, cached, channel_gram, comparable_pairs, rescaled
from diswot.observation.functional import unit_rows
from diswot.observation.observe import Observation


def flows(maps: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Pair each stage with the next; pair a single stage with itself."""
    return list(pairwise(maps)) or [(maps[0], maps[0])]


def fsp(teacher: Observation, student: Observation) -> Tensor:
    """Flow of solution procedure: the distance of the inner products of successive stages.

    The flow is the C x C' matrix of inner products over positions of the maps of two stages, over
    H W, the larger map max-pooled to the smaller grid. The squared difference is averaged over
    entries, images and pairs of stages. The distance is at least 0.

    Yim et al., CVPR 2017, eq. 1 and 2. The paper takes the first and the last map of one
    resolution; here the two maps end two successive stages. If there is a single stage, the flow
    is from its map to itself.
    """
    pairs = comparable_pairs("fsp", teacher, student, widths=True)
    flows_t, flows_s = (map(_flow, flows(maps)) for maps in zip(*pairs, strict=True))
    return average(mse_loss(b, a) for a, b in zip(flows_t, flows_s, strict=True))


def _flow(pair: tuple[Tensor, Tensor]) -> Tensor:
    first, second = pair
    grid = tuple(map(min, first.shape[2:], second.shape[2:]))
    first, second = (m if m.shape[2:] == grid else _max_pooled(m, *grid) for m in pair)
    return first.flatten(2) @ second.flatten(2).mT / (grid[0] * grid[1])


@cached
def _max_pooled(maps: Tensor, rows: int, columns: int) -> Tensor:
    """Return the largest value of the positions that overlap each cell of a smaller grid."""
    if maps.shape[2:] != (2 * rows, 2 * columns):
        pooled: Tensor = adaptive_max_pool2d(maps, (rows, columns))
        return pooled
    maps = torch.maximum(maps[:, :, ::2], maps[:, :, 1::2])  # several times as fast
    return torch.maximum(maps[..., ::2], maps[..., 1::2])


def ickd(teacher: Observation, student: Observation) -> Tensor:
    """Inter-channel correlation: the distance of the channels' inner products.

    For each image, the C x C inner products of the channels' maps, rows scaled to unit length as
    in the published code. The squared difference is summed, divided by C, and averaged over images
    and pairs of stages. As in the paper, the row of the registry takes the last pair alone. Works
    for any grids. The distance lies between 0 and 4.

    Liu et al., ICCV 2021.
    """
    pairs = comparable_pairs("ickd", teacher, student, widths=True)
    return average(_difference(map_t, map_s) for map_t, map_s in pairs)


def _difference(teacher: Tensor, student: Tensor) -> Tensor:
    """Return the squared difference of the scaled rows of F F^T, mean over images and channels.

    F is a map as C x HW. If there are fewer positions than channels, the C x C matrices are never
    made: a row's term is n_T + n_S - 2 cos, and the inner product of row c of F F^T and of H H^T is
    f_c (F^T H) h_c^T.
    """
    if max(maps.shape[2:].numel() for maps in (teacher, student)) >= teacher.shape[1]:
        return mse_loss(_correlations(student), _correlations(teacher)) * teacher.shape[1]
    teacher, student = (rescaled(maps).flatten(2) for maps in (teacher, student))
    rows_t, rows_s = unit_rows(teacher), unit_rows(student)
    inner = ((rows_t @ (teacher.mT @ student)) * rows_s).sum(2)
    squares_t = ((rows_t @ (teacher.mT @ teacher)) * rows_t).sum(2)
    squares_s = ((rows_s @ (student.mT @ student)) * rows_s).sum(2)
    both = (squares_t > 0) & (squares_s > 0)
    lengths = torch.where(both, squares_t * squares_s, 1).sqrt()
    cosine = torch.where(both, inner / lengths, 0)
    return ((squares_t > 0).to(cosine) + (squares_s > 0).to(cosine) - 2 * cosine).mean()


@cached
def _correlations(maps: Tensor) -> Tensor:
    """Return the inner products of the channels, rows of unit length, B x C x C."""
    return unit_rows(channel_gram(maps))

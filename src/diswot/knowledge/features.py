"""Distances of the maps' values at every position, over the `stages`.

All raise a `UserError` if the maps of a pair have different widths or grids.

Letters: B images, C channels, H x W positions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss, softplus

from diswot.knowledge.stages import (
    average,
    cached,
    centred,
    comparable_pairs,
    rescaled,
    slices,
)
from diswot.observation.functional import unit_rows
from diswot.observation.observe import Observation


def fitnet(teacher: Observation, student: Observation) -> Tensor:
    """Hints: the mean squared difference of the maps.

    ||A_T - r(A_S)||^2, averaged over entries and pairs of stages. As in the paper, the row of the
    registry takes the middle pair alone. The distance is at least 0.

    Romero et al., ICLR 2015, eq. 3. There it is half the sum over entries. The regressor r is that
    of the adapter: a 1x1 convolution as in later work, where the paper has a larger one.
    """
    pairs = comparable_pairs("fitnet", teacher, student, widths=True, grids=True)
    return average(_mean_square(map_t, map_s) for map_t, map_s in pairs)


def _mean_square(teacher: Tensor, student: Tensor) -> Tensor:
    """Return the mean of the squared differences."""
    sums = [mse_loss(b, a, reduction="sum") for a, b in slices(teacher, student)]
    return torch.stack(sums).sum() / teacher.numel()


def pkd(teacher: Observation, student: Observation) -> Tensor:
    """Pearson distillation: half the squared difference of standardised channels.

    Over all images and positions, a channel has mean 0 and mean square 1. A channel that is
    constant to within rounding is zero. Where neither is, the result is one minus Pearson's
    correlation. It is averaged over channels and pairs of stages. The distance lies between 0 and
    2.

    Cao et al., NeurIPS 2022. The published code adds 1e-6 to the deviation; here
    nothing is added. It sums over the levels of a feature pyramid, with the weight 6 each.
    """
    pairs = comparable_pairs("pkd", teacher, student, widths=True, grids=True)
    channels = ((_unit_channels(map_t), _unit_channels(map_s)) for map_t, map_s in pairs)
    return average((a - b).square().sum(1).mean() / 2 for a, b in channels)


@cached
def _unit_channels(maps: Tensor) -> Tensor:
    """Return the channels without their mean, scaled to unit length, C x BHW."""
    return unit_rows(centred(rescaled(maps).transpose(0, 1).flatten(1)))


def ab(teacher: Observation, student: Observation, margin: float = 1.0) -> Tensor:
    """Activation boundaries: the distance of the neurons' signs.

    Where the teacher's neuron is active (A_T > 0), the student's shall exceed the margin m: max(0,
    m - A_S)^2. Elsewhere it shall stay below -m: max(0, m + A_S)^2. The result is averaged over
    entries and pairs of stages. The distance is at least 0.

    Heo et al., AAAI 2019. The published code sums over entries, with half the weight for each
    earlier stage. There the student's maps are those before the ReLU, after a 1x1 convolution and
    a batch normalisation where widths differ. Here they are the maps that end the stages, after the
    ReLU in most networks, so that their sign comes from the adapter, which has no batch
    normalisation: in a loss always, in a proxy only where widths differ. Without an adapter, a
    neuron that is inactive in both still counts m^2, so that the distance of a network to itself
    is not zero.
    """
    pairs = comparable_pairs("ab", teacher, student, widths=True, grids=True)
    terms = (_violations(map_s, _signs(map_t), margin) / map_t.numel() for map_t, map_s in pairs)
    return average(terms)


def _violations(student: Tensor, signs: Tensor, margin: float) -> Tensor:
    """Return the sum of the squares by which neurons miss their side of the margin."""
    least = student.new_tensor(margin)
    misses = (torch.addcmul(least, s, o).relu() for s, o in slices(student, signs))
    return torch.stack([torch.linalg.vector_norm(part).square() for part in misses]).sum()


@cached
def _signs(maps: Tensor) -> Tensor:
    """Return 1 where a neuron is inactive and -1 where it is active."""
    return 1 - 2 * (maps > 0).to(maps)


def vid(
    teacher: Observation, student: Observation, variances: Sequence[Tensor] | None = None
) -> Tensor:
    """Variational information distillation: the negative log-likelihood of the teacher's maps.

    The likelihood is that of a Gaussian around the student's map with one variance v a channel,
    without its constant: (A_T - mu(A_S))^2 / 2v + log(v) / 2. It is averaged over entries and
    pairs of stages.

    Ahn et al., CVPR 2019. As in the published code it is a mean over entries, where the paper has
    a sum. In a loss, mu is the adapter's 1x1 convolution, where the published code has three
    layers, and v is learned (`Variances`). In a proxy each v is 1, so that it is half a mean
    squared difference. The variances are C of each stage, above zero.
    """
    pairs = comparable_pairs("vid", teacher, student, widths=True, grids=True)
    if not variances:
        return average(_mean_square(map_t, map_s) / 2 for map_t, map_s in pairs)
    return average(
        _log_likelihood(map_t - map_s, variance)
        for (map_t, map_s), variance in zip(pairs, variances, strict=True)
    )


def _log_likelihood(error: Tensor, variance: Tensor) -> Tensor:
    """Return the negative log-likelihood, mean over entries, without its constant."""
    squares: Tensor = torch.linalg.vector_norm(error, dim=(0, 2, 3)).square()
    return (squares / error[:, 0].numel() / variance + variance.log()).mean() / 2


class Variances(nn.Module):
    """The variances that `vid` learns as a loss, one a channel of the adapted maps.

    A variance is softplus(alpha) + 1e-5 as in the paper. It starts at 1, in the published code
    at 5.
    """

    LEAST = 1e-5

    def __init__(self, teacher: Observation) -> None:
        super().__init__()
        start = math.log(math.expm1(1 - self.LEAST))
        self.raw = nn.ParameterList(
            [torch.full((s.shape[1],), start, device=s.device) for s in teacher.stages]
        )

    def forward(self) -> dict[str, list[Tensor]]:
        """Return the keyword arguments of `vid`."""
        return {"variances": [softplus(raw) + self.LEAST for raw in self.raw]}

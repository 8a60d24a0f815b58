"""What the feature maps say at every position: the values themselves, compared."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss, softplus

from diswot.knowledge.stages import average, matched, once, slices
from diswot.observation.observe import Observation


def fitnet(teacher: Observation, student: Observation) -> Tensor:
    """Hints: the values of the maps, compared. Romero et al., ICLR 2015, eq. 3.

    ||A_T - r(A_S)||^2, here the mean over all entries instead of half the sum, and over pairs of
    stages, of which the row takes the middle one, as the paper does. The regressor r is the
    adapter's: a 1x1 convolution, which later work uses for the paper's larger one.

    Raises:
        UserError: A pair of maps differs in width or grid.
    """
    pairs = matched("fitnet", teacher, student, widths=True, grids=True)
    return average(_mean_square(ours, theirs) for ours, theirs in pairs)


def _mean_square(teacher: Tensor, student: Tensor) -> Tensor:
    """Mean of the squared differences."""
    sums = [mse_loss(b, a, reduction="sum") for a, b in slices(teacher, student)]
    return torch.stack(sums).sum() / teacher.numel()


def ab(teacher: Observation, student: Observation, margin: float = 1.0) -> Tensor:
    """Activation boundaries: which neurons are on, compared. Heo et al., AAAI 2019.

    Where the teacher's neuron is on (A_T > 0) the student is to exceed the margin,
    max(0, m - A_S)^2, elsewhere to stay below its negative, max(0, m + A_S)^2; mean over entries
    and pairs of stages. The published code sums over entries instead, with half the weight for
    each stage before.

    There the student's maps are those before the ReLU, after a connector where widths differ: a 1x1
    convolution and a batch norm. Here they are the ends of the stages, after the ReLU in most
    networks, so that their sign comes from the adapter, which has no batch norm: as a loss always,
    as a proxy only where widths differ. Without one, neurons that are off in both still count m^2,
    and the distance of a network to itself is not zero.

    Args:
        teacher: Its stages are used.
        student: Likewise.
        margin: m, above zero.

    Raises:
        UserError: A pair of maps differs in width or grid.
    """
    pairs = matched("ab", teacher, student, widths=True, grids=True)
    return average(_wrong(theirs, _off(ours), margin) / ours.numel() for ours, theirs in pairs)


def _wrong(student: Tensor, off: Tensor, margin: float) -> Tensor:
    """Sum of the squares of how far neurons are on the wrong side."""
    least = student.new_tensor(margin)
    far = (torch.addcmul(least, s, o).relu() for s, o in slices(student, off))
    return torch.stack([torch.linalg.vector_norm(part).square() for part in far]).sum()


@once
def _off(maps: Tensor) -> Tensor:
    """1 where a neuron is off, -1 where it is on."""
    return 1 - 2 * (maps > 0).to(maps)


def vid(
    teacher: Observation, student: Observation, variances: Sequence[Tensor] | None = None
) -> Tensor:
    """Variational information distillation: how surprising the teacher's maps are, given ours.

    The negative log-likelihood of the teacher's map under a Gaussian around the student's, with
    one variance v a channel, without its constant: (A_T - mu(A_S))^2 / 2v + log(v) / 2, mean over
    entries, as in the published code (the paper sums), and over pairs of stages. Ahn et al., CVPR
    2019. As a loss, mu is the adapter's 1x1 convolution (theirs has three layers) and v
    is learned (`Variances`); as a proxy every v is 1, so that it is half a mean squared difference.

    Args:
        teacher: Its stages are used.
        student: Likewise.
        variances: C for each stage, above zero; 1 without.

    Raises:
        UserError: A pair of maps differs in width or grid.
    """
    pairs = matched("vid", teacher, student, widths=True, grids=True)
    if not variances:
        return average(_mean_square(ours, theirs) / 2 for ours, theirs in pairs)
    return average(
        _surprise(ours - theirs, variance)
        for (ours, theirs), variance in zip(pairs, variances, strict=True)
    )


def _surprise(error: Tensor, variance: Tensor) -> Tensor:
    squares: Tensor = torch.linalg.vector_norm(error, dim=(0, 2, 3)).square()
    return (squares / error[:, 0].numel() / variance + variance.log()).mean() / 2


class Variances(nn.Module):
    """What `vid` learns as a loss besides its adapter: a variance a channel.

    softplus(alpha) + 1e-5, as in the paper; 1 at first, where the published code begins with 5.

    Args:
        teacher: Adapted, for the widths of its stages.
    """

    LEAST = 1e-5

    def __init__(self, teacher: Observation) -> None:
        super().__init__()
        start = math.log(math.expm1(1 - self.LEAST))
        self.raw = nn.ParameterList(
            [torch.full((s.shape[1],), start, device=s.device) for s in teacher.stages]
        )

    def forward(self) -> dict[str, list[Tensor]]:
        """The keyword arguments of `vid`."""
        return {"variances": [softplus(raw) + self.LEAST for raw in self.raw]}

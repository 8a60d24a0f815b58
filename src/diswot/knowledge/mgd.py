"""The distance of the maps that are generated from a student's masked maps, over the `stages`.

Letters: B images, C channels, H x W positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from diswot.knowledge.stages import average, comparable_pairs
from diswot.observation.observe import Observation

MASKED = 0.65  # share of the positions, as in the paper for detectors of one stage


def mgd(
    teacher: Observation,
    student: Observation,
    generators: Sequence[Callable[[Tensor], Tensor]] | None = None,
) -> Tensor:
    """Masked generative distillation: the mean squared difference of generated maps.

    ||A_T - G(M A_S)||^2, averaged over entries and pairs of stages. M masks random positions, G is
    a small generator that is learned. The student must hold at each position what the neighbours
    need to restore the teacher's map. The distance is at least 0.

    Yang et al., ECCV 2022, eq. 4 and 5, where it is a sum over entries. In a loss, M and G are
    those of `Generators`, one a stage. In a proxy there is neither, and the distance is that of the
    maps: a generator with random weights says nothing about the student.

    Raises:
        UserError: The maps of a pair have different widths or grids.
    """
    pairs = comparable_pairs("mgd", teacher, student, widths=True, grids=True)
    made = generators or [nn.Identity()] * len(pairs)
    return average(
        mse_loss(generate(map_s), map_t)
        for (map_t, map_s), generate in zip(pairs, made, strict=True)
    )


class Generators(nn.Module):
    """The generators that `mgd` learns as a loss, one a stage of the adapted maps.

    As in the paper, each is two 3x3 convolutions of the teacher's width with a ReLU in between,
    behind the mask. The mask is drawn anew in each pass from torch's generator, as dropout is.
    """

    SEED = 2204  # of the weights, so that no other random number of a training changes

    def __init__(self, teacher: Observation) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.SEED)
            made = [_generator(stage.shape[1]).to(stage.device) for stage in teacher.stages]
        self.stages = nn.ModuleList(made)

    def forward(self) -> dict[str, list[Callable[[Tensor], Tensor]]]:
        """Return the keyword arguments of `mgd`."""
        return {"generators": [_Masked(stage) for stage in self.stages]}


class _Masked(nn.Module):
    """A generator behind a random mask of positions, the same for all channels."""

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, maps: Tensor) -> Tensor:
        kept = torch.rand_like(maps[:, :1]) > MASKED
        made: Tensor = self.generator(maps * kept)
        return made


def _generator(width: int) -> nn.Module:
    first, second = (nn.Conv2d(width, width, 3, padding=1, device="cpu") for _ in range(2))
    return nn.Sequential(first, nn.ReLU(), second)

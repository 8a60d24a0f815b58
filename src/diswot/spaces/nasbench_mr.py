"""The space of NAS-Bench-MR: networks of up to four parallel resolutions, as in HRNet.

    images -> stem -> module1_1 -> module1_2 -> ... -> merge -> pool -> flatten -> classifier

The stem returns B x C x H/4 x W/4. Stage s has s branches; branch b has H/2^(b+1) x W/2^(b+1)
positions. A stage is 1 to 4 modules. A module fuses each branch before it with its neighbours, and
runs 1 to 4 residual blocks in each branch. The merge brings all branches to the size of the last.
The network for segmentation has the same layers, but merges at the size of the first branch, and
classifies each position:

    images -> stem -> module1_1 -> module1_2 -> ... -> merge -> classifier

Paper: Ding et al., "Learning Versatile Neural Architectures by Propagating Network Codes", ICLR
2022, arXiv 2103.13253. The parameters in the published table are those of 50 classes. Its FLOPs are
the multiply-adds of one image of 128 x 128, and two more for each output of a batch norm, and one
for each logit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from optuna.trial import BaseTrial
from torch import Tensor, nn
from torch.nn.functional import interpolate

from diswot.errors import UserError
from diswot.spaces.cells import conv_bn, conv_bn_relu
from diswot.spaces.trials import EnumeratingTrial

STAGES = (1, 2, 3, 4)
COUNTS = (1, 2, 3, 4)  # modules of a stage, and blocks of a branch
WIDTHS = tuple(range(8, 129, 8))
SIZE = len(WIDTHS) ** (2 + sum(STAGES) + 1) * len(COUNTS) ** (len(STAGES) + sum(STAGES))


@dataclass(frozen=True)
class BranchedStage:
    """The choices of a stage.

    Attributes:
        modules: Number of modules.
        blocks: Number of residual blocks of each branch.
        widths: Channels of each branch.
    """

    modules: int
    blocks: tuple[int, ...]
    widths: tuple[int, ...]


class BranchBlock(nn.Module):
    """Two 3x3 convolutions of one width and an identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(*conv_bn_relu(width, width, 3), *conv_bn(width, width, 3))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map B x C x H x W to the same shape."""
        out: Tensor = self.relu(x + self.residual(x))
        return out


class Fusion(nn.Module):
    """The exchange between neighbouring branches before a module.

    A branch is the sum of three maps: its own after a 3x3 convolution; the next finer one after a
    3x3 convolution of stride 2; and the next coarser one after a 1x1 convolution, enlarged. A new
    branch is a 3x3 convolution of stride 2 of the branch before it. There are as many channels
    after as before, or one more.
    """

    def __init__(self, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        super().__init__()
        known = len(inputs)
        self.sources = [range(max(0, to - 1), min(known, to + 2)) for to in range(known)]
        self.new = range(known, len(outputs))
        paths = {}
        for to, sources in enumerate(self.sources):
            for source in sources:
                size, stride = (1, 1) if source > to else (3, 2 if source < to else 1)
                paths[_path(source, to)] = conv_bn_relu(inputs[source], outputs[to], size, stride)
        for to in self.new:
            paths[_path(to - 1, to)] = conv_bn_relu(outputs[to - 1], outputs[to], 3, 2)
        self.paths = nn.ModuleDict(paths)
        self.relu = nn.ReLU()

    def forward(self, before: list[Tensor]) -> list[Tensor]:
        """Map the branches before to the branches after, finest first."""
        after: list[Tensor] = []
        for to, sources in enumerate(self.sources):
            terms = [self._term(before, source, to) for source in sources]
            after.append(self.relu(reduce(torch.add, terms)))
        for to in self.new:
            after.append(self.paths[_path(to - 1, to)](after[to - 1]))
        return after

    def _term(self, before: list[Tensor], source: int, to: int) -> Tensor:
        out: Tensor = self.paths[_path(source, to)](before[source])
        return interpolate(out, before[to].shape[2:]) if source > to else out


class ParallelModule(nn.Module):
    """A fusion of the branches before, and the residual blocks of a stage in each branch."""

    def __init__(self, inputs: Sequence[int], stage: BranchedStage) -> None:
        super().__init__()
        self.fusion = Fusion(inputs, stage.widths)
        self.branches = nn.ModuleList(
            nn.Sequential(*(BranchBlock(width) for _ in range(count)))
            for count, width in zip(stage.blocks, stage.widths, strict=True)
        )

    def forward(self, before: list[Tensor]) -> list[Tensor]:
        """Map the branches before to the branches after, finest first."""
        fused = self.fusion(before)
        return [blocks(x) for blocks, x in zip(self.branches, fused, strict=True)]


class MultiResolutionNet(nn.Module):
    """A network of parallel resolutions with a head for classification, or for segmentation.

    Args:
        stem: Channels of the two convolutions of the stem.
        stages: The four stages.
        last: Channels of the merged map.
        num_classes: Number of logits, K.
        dense: Whether the network classifies each position. Default: each image.
    """

    def __init__(
        self,
        stem: Sequence[int],
        stages: Sequence[BranchedStage],
        last: int,
        num_classes: int = 100,
        *,
        dense: bool = False,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            conv_bn_relu(3, stem[0], 3, 2), conv_bn_relu(stem[0], stem[1], 3, 2)
        )
        widths: Sequence[int] = stem[1:]
        self.names: list[str] = []
        for place, stage in enumerate(stages, 1):
            for number in range(1, stage.modules + 1):
                self.names.append(f"module{place}_{number}")
                self.add_module(self.names[-1], ParallelModule(widths, stage))
                widths = stage.widths
        self.merge = conv_bn_relu(sum(widths), last, 1)
        self.dense = dense
        self.pool = nn.Identity() if dense else nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Identity() if dense else nn.Flatten()
        self.classifier = nn.Conv2d(last, num_classes, 1) if dense else nn.Linear(last, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images B x 3 x H x W to logits B x K, or B x K x H/4 x W/4 of a dense network."""
        branches = [self.stem(x)]
        for name in self.names:
            branches = getattr(self, name)(branches)
        kept = 0 if self.dense else len(branches) - 1
        size = branches[kept].shape[2:]
        maps = [
            each if place == kept else interpolate(each, size, mode="bilinear")
            for place, each in enumerate(branches)
        ]
        merged = self.merge(torch.cat(maps, dim=1))
        logits: Tensor = self.classifier(self.flatten(self.pool(merged)))
        return logits


def build(trial: BaseTrial, num_classes: int = 100) -> MultiResolutionNet:
    """Build a network of 27 parameters.

    `stem_1`, `stem_2` and `last` are channels. Stage s has `modules_s`, and of each branch b
    `blocks_s_b` and `width_s_b`.
    """
    return MultiResolutionNet(*_choices(trial), num_classes)


def build_seg(trial: BaseTrial, num_classes: int = 19) -> MultiResolutionNet:
    """Build a network for segmentation; the parameters are those of `build`."""
    return MultiResolutionNet(*_choices(trial), num_classes, dense=True)


def _choices(trial: BaseTrial) -> tuple[tuple[int, int], list[BranchedStage], int]:
    """Return the channels of the stem, the stages, and the channels of the merged map."""

    def width(name: str) -> int:
        return trial.suggest_int(name, WIDTHS[0], WIDTHS[-1], step=WIDTHS[0])

    def count(name: str) -> int:
        return trial.suggest_int(name, COUNTS[0], COUNTS[-1])

    stem = width("stem_1"), width("stem_2")
    stages = [
        BranchedStage(
            count(f"modules_{s}"),
            tuple(count(f"blocks_{s}_{b}") for b in range(1, s + 1)),
            tuple(width(f"width_{s}_{b}") for b in range(1, s + 1)),
        )
        for s in STAGES
    ]
    return stem, stages, width("last")


def from_arch(text: str) -> dict[str, int]:
    """Convert 27 numbers, joined by hyphens, to parameters.

    They have the order in which `build` asks for them.

    Raises:
        UserError: The text has another number of parts, or one is not in the space.
    """
    trial = EnumeratingTrial()
    _choices(trial)
    parts = text.split("-")
    if len(parts) != len(trial.params):
        raise UserError(
            f"an architecture is {len(trial.params)} numbers, not {len(parts)}: {text!r}"
        )
    params = {}
    for name, part in zip(trial.params, parts, strict=True):
        known = COUNTS if name.startswith(("modules", "blocks")) else WIDTHS
        if part not in map(str, known):
            raise UserError(f"{name} is {part}; known: {', '.join(map(str, known))}")
        params[name] = int(part)
    return params


def _path(source: int, to: int) -> str:
    return f"{source}_{to}"

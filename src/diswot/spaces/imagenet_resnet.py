"""The space of ImageNet ResNets: 3 to 5 stages with a block, kernel, width and depth each.

    images -> 7x7 convolution, pooling -> stages -> (1x1 convolution) -> mean -> classifier

The students of DisWOT's ImageNet experiment, Dong et al., CVPR 2023, section 4: the teacher is
ResNet-34, the budget about that of ResNet-18. Both are in the space, and with 2048 `features`
ResNet-50 (He et al., CVPR 2016). The blocks are timm's. The paper lists no choices; ours are below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from optuna.trial import BaseTrial
from timm.layers.conv_bn_act import ConvNormAct
from timm.models.byobnet import BasicBlock, BottleneckBlock
from torch import Tensor, nn

from diswot.spaces.strides import strides

BLOCKS = ("basic", "bottleneck")
KERNELS = (3, 5, 7)
FACTORS = (0.5, 0.75, 1.0, 1.25)
BASES = (64, 128, 256, 512, 512)
DEPTHS = (1, 6)
STAGES = (3, 5)
EXPANSION = 4
_A_STAGE = len(BLOCKS) * len(KERNELS) * len(FACTORS) * DEPTHS[1]
SIZE = sum(_A_STAGE**stages for stages in range(STAGES[0], STAGES[1] + 1))


@dataclass(frozen=True)
class ResNetStage:
    """A stage: blocks of one resolution.

    Attributes:
        block: `basic`, two k x k convolutions; or `bottleneck`, 1 x 1, k x k and 1 x 1.
        kernel: Side k.
        width: Channels of the k x k convolutions; a bottleneck returns four times as many.
        depth: Number of blocks.
    """

    block: str
    kernel: int
    width: int
    depth: int

    @property
    def channels(self) -> int:
        """Channels of the last map of the stage."""
        return self.width * (EXPANSION if self.block == "bottleneck" else 1)

    def layers(self, inputs: int, stride: int) -> nn.Sequential:
        """Build the blocks; the first block has the stride."""
        block = partial(
            BottleneckBlock if self.block == "bottleneck" else BasicBlock,
            out_chs=self.channels,
            kernel_size=self.kernel,
            bottle_ratio=self.width / self.channels,
            downsample="conv1x1",
        )
        rest = (block(self.channels) for _ in range(self.depth - 1))
        return nn.Sequential(block(inputs, stride=stride), *rest)


class ImageNetResNet(nn.Module):
    """A residual network whose stages differ in block, kernel, width and depth.

    Args:
        stages: Stages from the first to the last.
        num_classes: Number of logits, K.
        img_size: Height and width of the images in pixels. With four stages, the stem divides
            the size by 4 from 96 pixels on, as published; by 2 at 64 pixels, with a 3 x 3
            convolution and no pooling; by 1 at 32 pixels.
        features: Channels of the last map, C. If the last stage has another number, a 1 x 1
            convolution follows, so that scores can compare channels with those of the teacher.
    """

    def __init__(
        self,
        stages: Sequence[ResNetStage],
        num_classes: int = 1000,
        img_size: int = 224,
        features: int = 512,
    ) -> None:
        super().__init__()
        pool, first, *rest = strides([2, 2, 1] + [2] * (len(stages) - 1), img_size)
        self.conv1 = ConvNormAct(3, BASES[0], 7 if pool > 1 else 3, first)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if pool > 1 else nn.Identity()
        widths = [BASES[0], *(stage.channels for stage in stages)]
        self.stages = nn.Sequential(
            *(s.layers(w, by) for s, w, by in zip(stages, widths, rest, strict=False))
        )
        self.neck = nn.Identity() if widths[-1] == features else ConvNormAct(widths[-1], features)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(features, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images B x 3 x S x S to logits B x K."""
        x = self.neck(self.stages(self.maxpool(self.conv1(x))))
        logits: Tensor = self.fc(self.pool(x).flatten(1))
        return logits


def build(
    trial: BaseTrial, num_classes: int = 1000, img_size: int = 224, features: int = 512
) -> ImageNetResNet:
    """Build a network: `stages`, and `block_i`, `kernel_i`, `width_i` and `depth_i` of each.

    The number of stages is chosen first. The side of the images sets the stem. `features` are the
    channels of the last map, C: ResNet-18 and ResNet-34 have 512, ResNet-50 2048.
    """
    count = trial.suggest_int("stages", *STAGES)
    stages = [_stage(trial, place) for place in range(1, count + 1)]
    return ImageNetResNet(stages, num_classes, img_size, features)


def _stage(trial: BaseTrial, place: int) -> ResNetStage:
    widths = [int(BASES[place - 1] * factor) for factor in FACTORS]
    return ResNetStage(
        trial.suggest_categorical(f"block_{place}", BLOCKS),
        trial.suggest_categorical(f"kernel_{place}", KERNELS),
        trial.suggest_categorical(f"width_{place}", widths),
        trial.suggest_int(f"depth_{place}", *DEPTHS),
    )

"""The space of convolutional networks for small images: three stages with a block kind each.

    images -> 3x3 convolution -> three stages -> (1x1 convolution) -> mean -> classifier

The maps of 32-pixel images have 32, 16 and 8 pixels a side. In the space are the CIFAR ResNets of
basic blocks, `resnet20` to `resnet56` of the registry (He et al., CVPR 2016); those of bottlenecks,
such as ResNet-29 (He et al., ECCV 2016); and three stages of MobileNetV2 (Sandler et al., CVPR
2018) at these sizes, with ReLU instead of ReLU6. Bottlenecks and inverted residuals are timm's. The
squeeze-and-excitation has a quarter of the block's input channels, as in EfficientNet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from optuna.trial import BaseTrial
from timm.layers.conv_bn_act import ConvNormAct
from timm.models.byobnet import BottleneckBlock, LayerFn
from torch import Tensor, nn
from torch.nn.functional import hardswish, relu

from diswot.models.cifar_resnet import BasicBlock
from diswot.utils.compat import efficientnet_blocks

BLOCKS = ("basic", "bottleneck", "inverted", "inverted_se")
ACTIVATIONS = {"relu": (relu, nn.ReLU), "hardswish": (hardswish, nn.Hardswish)}
STEMS = (8, 16, 32, 64)
WIDTHS = ((8, 16, 24, 32, 48), (16, 32, 48, 64, 96), (32, 64, 96, 128, 192))
DEPTHS = (1, 9)
KERNELS = (3, 5)
EXPANSIONS = (2, 4, 6)
HEADS = (0, 64, 128, 256, 512)
BOTTLENECK = 4  # output channels of a bottleneck for each channel of its k x k convolution
SMALL = 64  # pixels a side; the maps of the first stage are smaller
_A_STAGE = (len(BLOCKS) - 2 + 2 * len(EXPANSIONS)) * len(WIDTHS[0]) * DEPTHS[1] * len(KERNELS)
SIZE = len(STEMS) * len(ACTIVATIONS) * _A_STAGE ** len(WIDTHS) * len(HEADS)


@dataclass(frozen=True)
class CifarStage:
    """Blocks of one kind and of one resolution.

    Attributes:
        block: A name of `BLOCKS`.
        width: Channels of the maps; in bottlenecks those of the k x k convolutions, and the maps
            have four times as many. So equal widths cost about the same in all kinds.
        depth: Number of blocks.
        kernel: Side k of the spatial convolutions.
        expansion: Hidden channels of an inverted residual for each of its input channels.
    """

    block: str
    width: int
    depth: int
    kernel: int
    expansion: int = 1

    @property
    def channels(self) -> int:
        """Channels of the last map of the stage."""
        return self.width * (BOTTLENECK if self.block == "bottleneck" else 1)

    def layers(self, inputs: int, stride: int, activation: str) -> nn.Sequential:
        """Build the blocks; the first block has the stride."""
        shapes = [(inputs, stride), *[(self.channels, 1)] * (self.depth - 1)]
        return nn.Sequential(*(self._block(*shape, activation) for shape in shapes))

    def _block(self, inputs: int, stride: int, activation: str) -> nn.Module:
        function, act = ACTIVATIONS[activation]
        if self.block == "basic":
            return BasicBlock(inputs, self.width, stride, self.kernel, function)
        if self.block == "bottleneck":
            conv = partial(ConvNormAct, act_layer=act)
            layers = LayerFn(conv_norm_act=conv, act=act)  # type: ignore[arg-type] # as timm does
            return BottleneckBlock(
                inputs,
                self.channels,
                self.kernel,
                stride,
                bottle_ratio=1 / BOTTLENECK,
                downsample="conv1x1",
                layers=layers,
            )
        blocks = efficientnet_blocks()
        gate = partial(blocks.SqueezeExcite, rd_channels=inputs // 4)
        block: nn.Module = blocks.InvertedResidual(
            inputs,
            self.width,
            self.kernel,
            stride,
            exp_ratio=self.expansion,
            act_layer=act,
            se_layer=gate if self.block == "inverted_se" else None,
        )
        return block


class CifarCnn(nn.Module):
    """A network for small images whose three stages differ in block kind, width and depth.

    With basic blocks and ReLU it has the layers, and their names, of a `CifarResNet`.

    Args:
        stem: Channels of the first map.
        stages: The three stages.
        activation: A key of `ACTIVATIONS`.
        head: Channels of a 1 x 1 convolution after the last stage; 0 for none.
        num_classes: Number of logits, K.
        img_size: Height and width of the images in pixels. From 64 pixels on, the stem halves the
            maps until the first stage has fewer than 64 pixels a side.
    """

    def __init__(
        self,
        stem: int,
        stages: Sequence[CifarStage],
        activation: str = "relu",
        head: int = 0,
        num_classes: int = 100,
        img_size: int = 32,
    ) -> None:
        super().__init__()
        _, act = ACTIVATIONS[activation]
        shrink = 2 ** (img_size // SMALL).bit_length()
        self.conv1 = nn.Conv2d(3, stem, 3, min(2, shrink), 1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.act = act()
        self.pool1 = nn.MaxPool2d(shrink // 2) if shrink > 2 else nn.Identity()
        inputs = [stem, *(stage.channels for stage in stages)]
        self.layer1, self.layer2, self.layer3 = (
            stage.layers(width, stride, activation)
            for stage, width, stride in zip(stages, inputs, (1, 2, 2), strict=False)
        )
        last = inputs[-1]
        self.neck: nn.Module | None = None
        if head:
            conv = nn.Conv2d(last, head, 1, bias=False)
            self.neck = nn.Sequential(conv, nn.BatchNorm2d(head), act())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(head or last, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images B x 3 x S x S to logits B x K."""
        x = self.pool1(self.act(self.bn1(self.conv1(x))))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = x if self.neck is None else self.neck(x)
        logits: Tensor = self.fc(self.pool(x).flatten(1))
        return logits


def build(
    trial: BaseTrial, num_classes: int = 100, img_size: int = 32, features: int | None = None
) -> CifarCnn:
    """Build a network: `stem`, `activation`, `head`, and five or four choices of each stage.

    Stage i has `block_i`, `width_i`, `depth_i` and `kernel_i`, and inverted residuals `expand_i`.
    The side of the images sets the stem. `features` are the channels of the last map, C, so that
    scores can compare channels with those of a teacher: if the last stage has another number, a
    1 x 1 convolution follows, and `head` is no choice.
    """
    stem = trial.suggest_categorical("stem", STEMS)
    activation = trial.suggest_categorical("activation", list(ACTIVATIONS))
    stages = [_stage(trial, place) for place in (1, 2, 3)]
    if features is None:
        head = trial.suggest_categorical("head", HEADS)
    else:
        head = 0 if stages[-1].channels == features else features
    return CifarCnn(stem, stages, activation, head, num_classes, img_size)


def _stage(trial: BaseTrial, place: int) -> CifarStage:
    block = trial.suggest_categorical(f"block_{place}", BLOCKS)
    return CifarStage(
        block,
        trial.suggest_categorical(f"width_{place}", WIDTHS[place - 1]),
        trial.suggest_int(f"depth_{place}", *DEPTHS),
        trial.suggest_categorical(f"kernel_{place}", KERNELS),
        trial.suggest_categorical(f"expand_{place}", EXPANSIONS) if "inverted" in block else 1,
    )

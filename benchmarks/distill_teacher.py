"""A ResNet-32 for CIFAR-100 with a head of its own kind, as `--teacher FILE:resnet32` loads it.

`resnet20` is a student of the same kind with three blocks a stage.

The stem has 64 channels; there is no rectifier after a block's sum but
one after each stage; and the classifier sees a 2 x 2 grid of means, not one.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, relu

STEM, WIDTHS = 64, (16, 32, 64)


class Block(nn.Module):
    """Two 3x3 convolutions; the sum is not rectified."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv2(relu(self.bn1(self.conv1(x))))) + self.shortcut(x)


class Rectified(nn.Sequential):
    """Blocks, then a rectifier."""

    def forward(self, x: Tensor) -> Tensor:
        return relu(super().forward(x))


class ResNet(nn.Module):
    def __init__(self, classes: int, blocks: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, STEM, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM)
        widths = (STEM, *WIDTHS)
        for stage in (1, 2, 3):
            first = Block(widths[stage - 1], widths[stage], 1 if stage == 1 else 2)
            rest = [Block(widths[stage], widths[stage], 1) for _ in range(blocks - 1)]
            setattr(self, f"layer{stage}", Rectified(first, *rest))
        self.linear = nn.Linear(4 * WIDTHS[2], classes)

    def forward(self, images: Tensor) -> Tensor:
        x = relu(self.bn1(self.conv1(images)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(avg_pool2d(x, 4).flatten(1))


def resnet32(classes: int = 100) -> nn.Module:
    return ResNet(classes, 5)


def resnet20(classes: int = 100) -> nn.Module:
    return ResNet(classes, 3)

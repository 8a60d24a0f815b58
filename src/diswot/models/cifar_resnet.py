"""ResNets for CIFAR (He et al., CVPR 2016)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn.functional import relu

WIDTHS = (16, 32, 64)


class BasicBlock(nn.Module):
    """Two k x k convolutions with a shortcut, which is a 1x1 convolution if the shape changes.

    The activation follows the first convolution and the sum.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        kernel: int = 3,
        activation: Callable[[Tensor], Tensor] = relu,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, kernel, 1, kernel // 2, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.activation = activation
        self.shortcut: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map B x C x H x W to B x C' x H/stride x W/stride."""
        y = self.bn2(self.conv2(self.activation(self.bn1(self.conv1(x)))))
        return self.activation(y + (x if self.shortcut is None else self.shortcut(x)))


class CifarResNet(nn.Module):
    """A ResNet for small images: a 3x3 stem and three stages of basic blocks.

    Args:
        blocks: Number of basic blocks in each stage; (n, n, n) is ResNet-(6n + 2).
        num_classes: Number of logits, K.
        widths: Channels of each stage.
        features: Channels of the last map, C. None, the default: the last width. If C is another
            number, a 1 x 1 convolution follows the last stage.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        num_classes: int = 100,
        widths: Sequence[int] = WIDTHS,
        features: int | None = None,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU()
        self.layer1 = _stage(blocks[0], widths[0], widths[0], 1)
        self.layer2 = _stage(blocks[1], widths[0], widths[1], 2)
        self.layer3 = _stage(blocks[2], widths[1], widths[2], 2)
        self.neck: nn.Module | None = None
        if features is not None and features != widths[2]:
            conv = nn.Conv2d(widths[2], features, 1, bias=False)
            self.neck = nn.Sequential(conv, nn.BatchNorm2d(features), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(features or widths[2], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images B x 3 x H x W to logits B x K."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = x if self.neck is None else self.neck(x)
        logits: Tensor = self.fc(self.pool(x).flatten(1))
        return logits


def _stage(blocks: int, inputs: int, outputs: int, stride: int) -> nn.Sequential:
    first = BasicBlock(inputs, outputs, stride)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)))

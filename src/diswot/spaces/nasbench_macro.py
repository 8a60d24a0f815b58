"""The NAS-Bench-Macro space: 6,561 sequences of eight layers with three operations.

    images -> stem -> stage1 -> stage2 -> stage3 -> norm -> pool -> flatten -> classifier

The stem returns B x 32 x H x W. Two layers follow in stage 1, B x 64 x H/2 x W/2; three in stage 2,
B x 128 x H/4 x W/4; and three in stage 3, B x 256 x H/8 x W/8. The norm is a 1x1 convolution to
1280 channels with its batch norm.

Paper: Su et al., "Prioritized Architecture Sampling with Monto-Carlo Tree Search", CVPR 2021, arXiv
2103.11922. Its parameters are all trainable ones; its FLOPs are the multiplications of convolutions
and of the classifier for one image of 32 x 32.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from optuna.trial import BaseTrial
from torch import Tensor, nn

from diswot.errors import UserError
from diswot.spaces.cells import conv_bn, conv_bn_relu

OPERATIONS = ("identity", "mb3_k3", "mb6_k5")
LAYERS = (2, 3, 3)
SIZE = len(OPERATIONS) ** sum(LAYERS)
STEM = 32
FEATURES = 1280


class InvertedResidual(nn.Module):
    """A block of MobileNetV2, with a shortcut where it keeps the shape.

    The depthwise convolution has the kernel, the stride, and `expansion` channels for each of the
    input's.
    """

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.residual = nn.Sequential(
            *conv_bn_relu(inputs, hidden, 1),
            *conv_bn_relu(hidden, hidden, kernel, stride, groups=hidden),
            *conv_bn(hidden, outputs, 1),
        )
        self.keeps_shape = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Map B x C x H x W to B x C' x H' x W'."""
        residual: Tensor = self.residual(x)
        return x + residual if self.keeps_shape else residual


def build(trial: BaseTrial, num_classes: int = 100) -> nn.Module:
    """Build a network of eight operations, `op_1` to `op_8`.

    Layers 1, 3 and 6 halve height and width and double the channels; there `identity` is a 1x1
    convolution. Elsewhere `identity` is no layer at all.
    """
    chosen = [trial.suggest_categorical(f"op_{i}", OPERATIONS) for i in range(1, sum(LAYERS) + 1)]
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["stem"] = conv_bn_relu(3, STEM, 3)
    width = STEM
    for place, count in enumerate(LAYERS, 1):
        operations, chosen = chosen[:count], chosen[count:]
        layers[f"stage{place}"] = _stage(operations, width)
        width *= 2
    layers["norm"] = conv_bn_relu(width, FEATURES, 1)
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["classifier"] = nn.Linear(FEATURES, num_classes)
    return nn.Sequential(layers)


def from_arch(text: str) -> dict[str, str]:
    """Convert the notation of the benchmark, eight digits, one a layer, to parameters.

    0 is `identity`, 1 `mb3_k3`, 2 `mb6_k5`.

    Raises:
        UserError: The text has another length or another character.
    """
    if len(text) != sum(LAYERS):
        raise UserError(f"an architecture is {sum(LAYERS)} digits, not {len(text)}: {text!r}")
    if bad := set(text) - set("012"):
        raise UserError(f"an operation is 0, 1 or 2, not {min(bad)!r}")
    return {f"op_{place}": OPERATIONS[int(digit)] for place, digit in enumerate(text, 1)}


def _stage(operations: Sequence[str], width: int) -> nn.Sequential:
    """Build layers from `width` to twice as many channels; the first halves height and width."""
    first = _layer(operations[0], width, 2)
    rest = (_layer(kind, 2 * width, 1) for kind in operations[1:] if kind != "identity")
    return nn.Sequential(first, *rest)


def _layer(kind: str, inputs: int, stride: int) -> nn.Module:
    outputs = inputs * stride
    if kind == "identity":
        return conv_bn(inputs, outputs, 1, stride)
    expansion, kernel = (3, 3) if kind == "mb3_k3" else (6, 5)
    return InvertedResidual(inputs, outputs, expansion, kernel, stride)

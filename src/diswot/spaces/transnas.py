"""The two spaces of TransNAS-Bench-101: cells in a fixed network, and modules of residual blocks.

    images -> stem -> module1 -> module2 -> ... -> pool -> flatten -> classifier

The stem returns B x 64 x H/4 x W/4. A module is two cells, or two residual blocks, of which the
first may double the channels and halve height and width. The networks of the benchmark saw images
of 256 x 256, and have a decoder for each task; here are those of classification and of
segmentation:

    encoder (stem -> module1 -> ...) -> decoder -> logits of each pixel

Paper: Duan et al., "TransNAS-Bench-101: Improving Transferability and Generalizability of
Cross-Task Neural Architecture Search", CVPR 2021, arXiv 2105.11871.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import partial

import torch
from optuna.trial import BaseTrial
from torch import Tensor, nn

from diswot.errors import UserError
from diswot.spaces.cells import EDGES, Cell, Residual, conv_bn, convolution

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3")
STEM = 64
MODULES = (4, 5, 6)
HALVINGS = (1, 2, 3, 4)  # numbers of modules that may halve height and width
DOUBLINGS = (1, 2, 3)  # numbers of modules that may double the channels

DECODER = 1024  # most channels of the decoder for segmentation
HALVED = 5  # layers of the decoder that halve the channels

Block = Callable[[int, int, int], nn.Module]
Encoder = tuple["OrderedDict[str, nn.Module]", int, int]  # layers, channels, halvings


def positions(modules: int, counts: Iterable[int]) -> list[str]:
    """List the choices of some modules among several, such as `1-3` of 4.

    The counts are the numbers of modules that may be chosen.
    """
    places = range(1, modules + 1)
    found = (itertools.combinations(places, count) for count in counts)
    return ["-".join(map(str, chosen)) for chosen in itertools.chain(*found)]


SIZE_MICRO = len(OPERATIONS) ** len(EDGES)
SIZE_MACRO = sum(len(positions(n, HALVINGS)) * len(positions(n, DOUBLINGS)) for n in MODULES)


class ShiftedConvolutions(nn.Module):
    """Two 1x1 convolutions of stride 2, the second on the map shifted by one pixel.

    Half of the output's channels are from each.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.even = nn.Conv2d(inputs, outputs // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(inputs, outputs - outputs // 2, 1, stride=2, bias=False)
        self.pad = nn.ConstantPad2d((0, 1, 0, 1), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Map B x C x H x W to B x C' x H/2 x W/2, rounded up."""
        return torch.cat([self.even(x), self.odd(self.pad(x)[:, :, 1:, 1:])], dim=1)


def residual_block(inputs: int, outputs: int, stride: int) -> Residual:
    """Build two 3x3 convolutions and a shortcut, a 1x1 convolution where the shape changes.

    The batch norm of that convolution has epsilon 1 and momentum 1, as the benchmark's code passes
    two flags in their places. The first convolution and the shortcut have the stride.
    """
    residual = nn.Sequential(
        convolution(inputs, outputs, 3, stride), convolution(outputs, outputs, 3)
    )
    if stride == 1 and inputs == outputs:
        return Residual(residual, nn.Identity())
    conv = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
    return Residual(residual, nn.Sequential(conv, nn.BatchNorm2d(outputs, eps=1.0, momentum=1.0)))


def build_micro(trial: BaseTrial, num_classes: int = 100) -> nn.Module:
    """Build a network of five modules of one cell; modules 1, 3 and 5 double and halve.

    The choices are `op_1_0`, `op_2_0`, `op_2_1`, `op_3_0`, `op_3_1` and `op_3_2`.
    """
    return _classifier(_micro(trial), num_classes)


def build_micro_seg(trial: BaseTrial, num_classes: int = 17) -> nn.Module:
    """Build a network of `build_micro` with the benchmark's decoder for segmentation."""
    return _segmenter(_micro(trial), num_classes)


def _micro(trial: BaseTrial) -> Encoder:
    operations = {name: trial.suggest_categorical(name, OPERATIONS) for name in EDGES}

    def cell(inputs: int, outputs: int, stride: int) -> nn.Module:
        make = partial(_operation, shape=(inputs, outputs, stride))
        return Cell(operations, make, outputs, stride)

    return _encoder(cell, 5, doubled={1, 3, 5}, halved={1, 3, 5})


def build_macro(trial: BaseTrial, num_classes: int = 100) -> nn.Module:
    """Build a network of 4 to 6 modules of residual blocks.

    `modules`, n, is chosen first. Of n modules, `halved_n` names those that halve height and width,
    and `doubled_n` those that double the channels, such as `1-3`.
    """
    return _classifier(_macro(trial), num_classes)


def build_macro_seg(trial: BaseTrial, num_classes: int = 17) -> nn.Module:
    """Build a network of `build_macro` with the benchmark's decoder for segmentation."""
    return _segmenter(_macro(trial), num_classes)


def _macro(trial: BaseTrial) -> Encoder:
    count = trial.suggest_categorical("modules", MODULES)
    chosen = [
        trial.suggest_categorical(f"{name}_{count}", positions(count, counts))
        for name, counts in (("halved", HALVINGS), ("doubled", DOUBLINGS))
    ]
    halved, doubled = ({int(place) for place in text.split("-")} for text in chosen)
    return _encoder(residual_block, count, doubled, halved)


def from_micro(text: str) -> dict[str, str]:
    """Convert six digits such as `0-1-2-3-0-1` to parameters.

    They are the operations on the edges into node 1 from 0, into 2 from 0 and 1, and into 3 from 0,
    1 and 2: 0 none, 1 skip, 2 1x1 and 3 3x3 convolution.

    Raises:
        UserError: The text has another number of operations, or an unknown one.
    """
    digits = text.split("-")
    if len(digits) != len(EDGES):
        raise UserError(f"a cell is {len(EDGES)} operations, not {len(digits)}: {text!r}")
    if bad := set(digits) - set("0123"):
        raise UserError(f"an operation is 0, 1, 2 or 3, not {min(bad)!r}")
    return {name: OPERATIONS[int(digit)] for name, digit in zip(EDGES, digits, strict=True)}


def from_macro(text: str) -> dict[str, int | str]:
    """Convert digits such as `1-2-3-4` to parameters; zeros at the end are no modules.

    A module is 1 normal, 2 doubles the channels, 3 halves height and width, 4 both.

    Raises:
        UserError: A digit is unknown, or the network is not in the space.
    """
    digits = text.split("-")
    while digits and digits[-1] == "0":
        digits.pop()
    if bad := set(digits) - set("1234"):
        raise UserError(f"a module is 1, 2, 3 or 4, not {min(bad)!r}")
    if (count := len(digits)) not in MODULES:
        raise UserError(f"modules is {count}; known: {', '.join(map(str, MODULES))}")
    params: dict[str, int | str] = {"modules": count}
    for name, kinds, counts in (("halved", "34", HALVINGS), ("doubled", "24", DOUBLINGS)):
        places = [str(place) for place, digit in enumerate(digits, 1) if digit in kinds]
        if len(places) not in counts:
            most = f"{counts[0]} to {counts[-1]}"
            raise UserError(f"{name}_{count} is {len(places)} modules of {text}; known: {most}")
        params[f"{name}_{count}"] = "-".join(places)
    return params


def _operation(kind: str, source: int, shape: tuple[int, int, int]) -> nn.Module:
    """Build an operation; only those on node 0 change channels and size."""
    inputs, outputs, stride = shape if source == 0 else (shape[1], shape[1], 1)
    if kind != "skip_connect":
        return convolution(inputs, outputs, 1 if kind == "nor_conv_1x1" else 3, stride)
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(nn.ReLU(), ShiftedConvolutions(inputs, outputs), nn.BatchNorm2d(outputs))


def _encoder(block: Block, modules: int, doubled: set[int], halved: set[int]) -> Encoder:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["stem"] = nn.Sequential(
        *conv_bn(3, STEM // 2, 3, 2),
        convolution(STEM // 2, STEM, 3, 2),
    )
    width = STEM
    for place in range(1, modules + 1):
        inputs, width = width, width * (2 if place in doubled else 1)
        first = block(inputs, width, 2 if place in halved else 1)
        layers[f"module{place}"] = nn.Sequential(first, block(width, width, 1))
    return layers, width, 2 + len(halved)


def _classifier(encoder: Encoder, num_classes: int) -> nn.Module:
    layers, width, _ = encoder
    head = {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    return nn.Sequential(OrderedDict(layers | head, classifier=nn.Linear(width, num_classes)))


def _segmenter(encoder: Encoder, num_classes: int) -> nn.Module:
    """Build a network with the decoder, which undoes all halvings of height and width.

    The first of its eight layers widens to 1,024 channels. Five halve them, of which the last
    `halvings` - 1 double height and width. Then one doubles these alone, and one gives the logits.
    """
    encoding, width, halvings = encoder
    widths = [DECODER >> halving for halving in range(HALVED + 1)]
    decoding: list[nn.Module] = [_decoding(width, DECODER, doubles=False)]
    for number, (inputs, outputs) in enumerate(itertools.pairwise(widths), 1):
        decoding.append(_decoding(inputs, outputs, doubles=number > HALVED + 1 - halvings))
    decoding.append(_decoding(widths[-1], widths[-1], doubles=True))
    decoding.append(nn.Conv2d(widths[-1], num_classes, 3, padding=1))
    parts = [("encoder", nn.Sequential(encoding)), ("decoder", nn.Sequential(*decoding))]
    return nn.Sequential(OrderedDict(parts))


def _decoding(inputs: int, outputs: int, *, doubles: bool) -> nn.Sequential:
    if doubles:
        linear: nn.Module = nn.ConvTranspose2d(inputs, outputs, 3, 2, padding=1, output_padding=1)
    else:
        linear = nn.Conv2d(inputs, outputs, 3, padding=1)
    return nn.Sequential(linear, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2))

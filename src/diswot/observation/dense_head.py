"""The linear map at the end of a dense network, from the convolutions that ran last.

A convolution is a linear map of the patch of each position. Bilinear interpolation of its output
and of its input commute, so the rows of a network that enlarges its logits are its enlarged inputs.

Letters: B images, N rows, K classes, C channels, D features that enter the classifier, h x w
positions.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from diswot.observation.rows import PixelRows

_ROUNDING = 1e-4  # of the largest logit
_STEP = 16  # of the rows at which outputs are compared with the logits


@dataclass(frozen=True)
class RanConvolution:
    """A convolution that ran.

    Attributes:
        name: Name of the layer.
        module: The layer.
        input: B x C x h x w.
        output: B x K x h x w.
    """

    name: str
    module: nn.Conv2d
    input: Tensor
    output: Tensor


def head_convolutions(
    ran: Iterable[RanConvolution], logits: Tensor, rows: PixelRows
) -> tuple[tuple[RanConvolution, ...], bool]:
    """Find the convolutions whose outputs are the logits: one, or several that are summed.

    Args:
        ran: The convolutions that ran last, in order.
        logits: The logits at the rows, N x K.
        rows: The rows.

    Returns:
        The convolutions, none if the logits are no linear function of those that ran; and whether
        their outputs were interpolated with aligned corners.
    """
    fitting = [each for each in ran if each.output.shape[1] == logits.shape[1]]
    rows, logits = rows.every(_STEP), logits[::_STEP]
    for heads in _candidates(fitting):
        for aligned in (False, True):
            found = sum(rows.read(each.output, align_corners=aligned) for each in heads)
            if torch.is_tensor(found) and agree(found, logits):
                return heads, aligned
    return (), False


def _candidates(fitting: Sequence[RanConvolution]) -> Iterator[tuple[RanConvolution, ...]]:
    """Yield each convolution alone, the last first, and then all of one shape."""
    yield from ((each,) for each in reversed(fitting))
    for shape in dict.fromkeys(each.output.shape for each in reversed(fitting)):
        yield tuple(each for each in fitting if each.output.shape == shape)


def agree(found: Tensor, logits: Tensor) -> bool:
    """Say whether the outputs of a layer are the logits, up to rounding."""
    difference = (found.detach().float() - logits.detach().float()).abs().amax()
    return bool(difference <= _ROUNDING * logits.detach().float().abs().amax())


def head_inputs(
    heads: Iterable[RanConvolution], rows: PixelRows, *, align_corners: bool
) -> Tensor | None:
    """Return the rows that enter the classifier, N x D; D is C times the kernel, of each summed.

    None if a convolution has groups, or pads with anything but zeros.
    """
    parts = []
    for each in heads:
        padding = zero_padding(each.module)
        if padding is None:
            return None
        windows = _windows(each, *padding)
        read = [rows.read(window, align_corners=align_corners) for window in windows]
        parts.append(torch.stack(read, 2).flatten(1))
    return torch.cat(parts, 1) if parts else None


def _windows(ran: RanConvolution, down: int, across: int) -> Iterator[Tensor]:
    """Yield what each entry of the kernel reads, B x C x h x w, row by row of the kernel."""
    module, (height, width) = ran.module, ran.output.shape[2:]
    padded = pad(ran.input, (across, across, down, down)) if down or across else ran.input
    for row, column in itertools.product(*map(range, module.kernel_size)):
        top, left = row * module.dilation[0], column * module.dilation[1]
        rows, columns = module.stride
        yield padded[:, :, top::rows, left::columns][:, :, :height, :width]


def zero_padding(module: nn.Conv2d) -> tuple[int, int] | None:
    """Return by how many zeros a convolution of whole patches pads each side, height and width.

    None if the convolution has groups, or pads with anything but zeros.
    """
    padding = module.padding
    if module.groups > 1 or module.padding_mode != "zeros" or isinstance(padding, str):
        return None
    return padding[0], padding[1]

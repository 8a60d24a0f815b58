"""Which channel of a teacher each channel of a student takes.

An index map has one entry for each of the student's channels: a channel of the teacher, or -1. It
depends on the two widths alone, so that all layers that write or read the same channels agree, also
across residual connections. Attention heads, flattened maps and hidden channels have maps of their
own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from diswot.models.correspondence import LayerPair
from diswot.models.hidden_channels import HiddenChannels
from diswot.models.weighted_layers import (
    DEPTHWISE,
    GROUPED,
    LINEAR,
    PROJECTION,
    QKV,
    SCALE,
    WeightedLayer,
)
from diswot.utils.compat import BatchNorm, ConvBase

NONE = -1  # entry of a channel that the teacher does not have


def evenly(teacher: int, student: int) -> Tensor:
    """Return evenly spaced channels of the teacher; or of the student, if the student has more."""
    if student <= teacher:
        return torch.arange(student) * teacher // student
    found = torch.full((student,), NONE)
    found[torch.arange(teacher) * student // teacher] = torch.arange(teacher)
    return found


def strongest(strengths: Tensor, student: int) -> Tensor:
    """Return the channels with the largest strengths, in order; `evenly` if there are too few."""
    if student >= len(strengths):
        return evenly(len(strengths), student)
    return strengths.argsort(descending=True, stable=True)[:student].sort().values


def repeated(chosen: Tensor, width: int, inner: Tensor) -> Tensor:
    """Return the map of channels that each have several places, such as heads or positions.

    Args:
        chosen: Map of the channels.
        width: Places in each channel of the teacher.
        inner: Map of the places in a channel.
    """
    both = chosen[:, None] * width + inner
    return both.masked_fill((chosen[:, None] < 0) | (inner < 0), NONE).flatten()


@dataclass
class ChannelMaps:
    """The index maps of all pairs of layers.

    Attributes:
        pairs: Layers of the student in order, with those of the teacher.
        norm: Whether channels are chosen by norm; else they are evenly spaced.
        hidden: Channels that one layer writes and one layer reads; they are chosen on their own.
    """

    pairs: Sequence[LayerPair]
    norm: bool
    hidden: Sequence[HiddenChannels] = ()
    _outputs: dict[WeightedLayer, Tensor] = field(default_factory=dict)
    _inputs: dict[WeightedLayer, Tensor] = field(default_factory=dict)
    _strengths: dict[int, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._choose_heads()
        if self.norm:
            self._choose_hidden()
            self._strengths = self._strengths_by_width()

    def width(self, teacher: int, student: int) -> Tensor:
        """Return the map of all channels of two widths."""
        if student < teacher and teacher in self._strengths:
            return strongest(self._strengths[teacher], student)
        return evenly(teacher, student)

    def outputs(self, student: WeightedLayer, teacher: WeightedLayer) -> Tensor:
        """Return the map of the channels that a layer writes."""
        found = self._outputs.get(student)
        return self.width(teacher.outputs, student.outputs) if found is None else found

    def inputs(self, student: WeightedLayer, teacher: WeightedLayer) -> Tensor:
        """Return the map of the channels that a layer reads, in each group of a convolution."""
        if isinstance(student.module, ConvBase) and isinstance(teacher.module, ConvBase):
            groups = student.module.groups, teacher.module.groups
            if max(groups) > 1:
                return evenly(teacher.inputs // groups[1], student.inputs // groups[0])
        found = self._inputs.get(student)
        return self.width(teacher.inputs, student.inputs) if found is None else found

    def _choose_heads(self) -> None:
        """Choose whole heads, and evenly spaced channels in each head."""
        heads, inner = torch.empty(0), torch.empty(0)
        for student, teacher in self.pairs:
            if teacher is None:
                continue
            if student.kind == QKV:
                width = teacher.outputs // 3 // teacher.heads
                inner = evenly(width, student.outputs // 3 // student.heads)
                heads = repeated(self._heads(student, teacher), width, inner)
                self._outputs[student] = repeated(torch.arange(3), teacher.outputs // 3, heads)
            elif student.kind == PROJECTION:
                self._inputs[student] = heads
            elif student.kind == SCALE and student.outputs == len(inner):
                self._outputs[student] = inner
            if student.kind in (LINEAR, PROJECTION):
                inner = torch.empty(0)

    def _heads(self, student: WeightedLayer, teacher: WeightedLayer) -> Tensor:
        if not self.norm:
            return evenly(teacher.heads, student.heads)
        weight = torch.cat([*teacher.weights["weight"]]).detach().cpu()
        strengths = weight.view(3, teacher.heads, -1).norm(dim=2).sum(0)
        return strongest(strengths, student.heads)

    def _choose_hidden(self) -> None:
        """Choose the hidden channels of each block by the layers that write and read them."""
        of = {pair.student: pair.teacher for pair in self.pairs}
        for hidden in self.hidden:
            writer, reader = of[hidden.writer], of[hidden.reader]
            if writer is None or reader is None:
                continue
            scales = [other for layer in hidden.between if (other := of[layer]) is not None]
            strengths = _written(writer) + _read(reader) + sum(map(_written, scales))
            chosen = strongest(strengths, hidden.writer.outputs)
            for layer in (hidden.writer, *hidden.between):
                self._outputs[layer] = chosen
            self._inputs[hidden.reader] = chosen

    def _strengths_by_width(self) -> dict[int, Tensor]:
        """Return the strengths of the teacher's channels, summed over the layers of one width."""
        found: dict[int, Tensor] = {}
        even: set[int] = set()
        for student, teacher in dict.fromkeys(self.pairs):
            if teacher is None or not (teacher.is_map or teacher.kind == SCALE):
                continue
            if teacher.kind == GROUPED:
                even |= {teacher.inputs, teacher.outputs}
            if student not in self._outputs:
                _add(found, _written(teacher))
            if teacher.is_map and teacher.kind != DEPTHWISE and student not in self._inputs:
                _add(found, _read(teacher))
        return {width: value for width, value in found.items() if width not in even}


def flat_positions(layers: Sequence[WeightedLayer]) -> dict[WeightedLayer, int]:
    """Return the linear maps that read a flattened map, with its number of positions.

    The layers are all those of a network in order.
    """
    found = {}
    for before, layer in pairwise(layers):
        flat = layer.kind == LINEAR and isinstance(before.module, BatchNorm | ConvBase)
        if flat and layer.inputs % before.outputs == 0:
            found[layer] = layer.inputs // before.outputs
    return found


def _add(strengths: dict[int, Tensor], more: Tensor) -> None:
    width = len(more)
    strengths[width] = strengths.get(width, torch.zeros(width)) + more


def _written(layer: WeightedLayer) -> Tensor:
    """Return the norm of the weights of each output channel, over their mean."""
    weight = torch.cat([*next(iter(layer.weights.values()))]).detach().float().cpu()
    return _relative(weight.flatten(1) if weight.ndim > 1 else weight[:, None])


def _read(layer: WeightedLayer) -> Tensor:
    """Return the norm of the weights of each input channel, over their mean."""
    weight = torch.cat([*layer.weights["weight"]]).detach().float().cpu()
    return _relative(weight.transpose(0, 1).flatten(1))


def _relative(weight: Tensor) -> Tensor:
    norms = weight.norm(dim=1)
    mean: Tensor = norms / norms.mean().clamp(min=1e-12)
    return mean

"""Copies the weights of corresponding layers, by the index maps of their channels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from timm.layers.patch_embed import resample_patch_embed
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn

from diswot.models.channels import NONE, ChannelMaps, flat_positions, repeated
from diswot.models.correspondence import LayerPair
from diswot.models.weighted_layers import FREE, PATCHES, WeightedLayer
from diswot.utils.compat import ConvBase


@dataclass(frozen=True)
class WeightCopier:
    """Copies the weights of all pairs of layers.

    Attributes:
        pairs: All layers of the student in order, with those of the teacher.
        teacher: All layers of the teacher in order.
        maps: Index maps of the channels.
        last: The teacher's output of each output of the student's last layers, or -1; None for a
            layer whose outputs are none of the teacher's.
    """

    pairs: Sequence[LayerPair]
    teacher: Sequence[WeightedLayer]
    maps: ChannelMaps
    last: Mapping[WeightedLayer, Tensor | None]

    def copy(self, student: WeightedLayer, teacher: WeightedLayer | None) -> int:
        """Copy the weights of a layer; return the number of parameters that are inherited."""
        if teacher is None or not _same_groups(student, teacher):
            return 0
        if student.kind == FREE:
            return self._copy_free(student, teacher)
        outputs: Tensor | None = self.maps.outputs(student, teacher)
        outputs = self.last.get(student, outputs)
        if outputs is None:
            return 0
        taken = 0
        for role, parts in student.weights.items():
            if role in teacher.weights:
                source = torch.cat([_lines(part) for part in teacher.weights[role]])
                maps = [outputs]
                if source.ndim > 1:
                    source, inputs = self._inputs(student, teacher, source)
                    source, kernel = _kernel(student, source)
                    maps += [inputs, *kernel]
                taken += _take(parts, source, maps, fill=True)
            elif role == "bias":
                for part in parts:
                    part.zero_()
        return taken

    @cached_property
    def _positions(self) -> dict[WeightedLayer, int]:
        students = [pair.student for pair in self.pairs]
        return flat_positions(students) | flat_positions(self.teacher)

    @cached_property
    def _widths(self) -> set[tuple[int, int]]:
        """Widths, heads included, that two layers of a pair have."""
        found = set()
        for student, teacher in self.pairs:
            if teacher is not None and student.kind != FREE:
                found |= {
                    (teacher.outputs, student.outputs),
                    (teacher.inputs, student.inputs),
                    (teacher.heads, student.heads),
                }
        return found

    def _inputs(
        self, student: WeightedLayer, teacher: WeightedLayer, source: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the weights of a map and the index map of the input channels.

        If a linear map reads a flattened map with another number of positions than the teacher's,
        the weights of a channel are summed and shared equally among the student's positions.
        """
        own, given = self._positions.get(student, 1), self._positions.get(teacher, 1)
        if own == given == 1:
            return source, self.maps.inputs(student, teacher)
        channels = self.maps.width(teacher.inputs // given, student.inputs // own)
        if own != given:
            source = source.reshape(len(source), -1, given).sum(2, keepdim=True) / own
            source = source.expand(-1, -1, own).flatten(1)
        return source, repeated(channels, own, torch.arange(own))

    def _copy_free(self, student: WeightedLayer, teacher: WeightedLayer) -> int:
        """Copy a parameter of no known layer, such as an embedding or the scale of a branch.

        A size must be the teacher's, or another layer must have the same two sizes as widths.
        """
        (parts,), ((source,),) = student.weights.values(), teacher.weights.values()
        target = parts[0]
        if target.ndim != source.ndim or target.ndim == 0:
            return 0
        tokens = None
        if target.ndim == 3 and len(source) == len(target) == 1 and "pos" in student.name.lower():
            source, tokens = _position_tokens(source, target.shape[1])
        maps = []
        for dim, sizes in enumerate(zip(source.shape, target.shape, strict=True)):
            if dim == 1 and tokens is not None:
                maps.append(tokens)
            elif sizes[0] == sizes[1] or sizes in self._widths:
                maps.append(self.maps.width(*sizes))
            else:
                return 0
        return _take(parts, source, maps, fill=False)


def _lines(part: Tensor) -> Tensor:
    return part if part.ndim else part[None]


def _same_groups(student: WeightedLayer, teacher: WeightedLayer) -> bool:
    """Whether two convolutions have as many groups; depthwise ones may have more or fewer."""
    one, other = student.module, teacher.module
    if isinstance(one, ConvBase) and isinstance(other, ConvBase):
        depthwise = one.groups == one.in_channels and other.groups == other.in_channels
        return one.groups == other.groups or depthwise
    return True


def _kernel(student: WeightedLayer, source: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return the weights and the index maps of the kernel's sides.

    Patches are resized as in FlexiViT (Beyer et al., CVPR 2023). Other kernels are cropped, or
    padded, around their centres.
    """
    if not isinstance(student.module, ConvBase):
        return source, []
    sides = student.module.kernel_size
    if student.kind == PATCHES and len(sides) == 2 and tuple(source.shape[2:]) != sides:
        source = resample_patch_embed(source, list(sides))
    maps = []
    for own, given in zip(sides, source.shape[2:], strict=True):
        places = torch.arange(own) + (given - own) // 2
        maps.append(places.masked_fill((places < 0) | (places >= given), NONE))
    return source, maps


def _position_tokens(source: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the positional embeddings, 1 x N x D, for a student's N, and the map of its tokens.

    Tokens above a square number are those of no position, such as the class token.
    """
    given = source.shape[1]
    if given == count:
        return source, torch.arange(count)
    side, own_side = math.isqrt(given), math.isqrt(count)
    extra, own_extra = given - side**2, count - own_side**2
    resized = resample_abs_pos_embed(source, [own_side] * 2, [side] * 2, extra)
    shared = min(extra, own_extra)
    tokens = [*range(shared), *[NONE] * (own_extra - shared)]
    return resized, torch.tensor([*tokens, *range(extra, extra + own_side**2)])


def _take(parts: Sequence[Tensor], source: Tensor, maps: Sequence[Tensor], *, fill: bool) -> int:
    """Copy what the index map of each dimension names; return the number of inherited parameters.

    Args:
        parts: Tensors of the student, one after the other along the first dimension.
        source: Tensor of the teacher.
        maps: Index map of each dimension.
        fill: Whether inherited outputs have zeros for inputs that the teacher does not have.
    """
    if not parts[0].ndim:
        parts[0].copy_(source[0])
        return 0
    known = torch.ones((), dtype=torch.bool)
    for dim, chosen in enumerate(maps):
        chosen = chosen.to(source.device)
        source = source.index_select(dim, chosen.clamp(min=0))
        known = known[..., None] & (chosen >= 0).cpu()
    target = torch.cat([_lines(part) for part in parts])
    known = known.to(target.device)
    rest = target
    if fill and target.ndim > 1:
        rows = (maps[0] >= 0).to(target.device).view(-1, *[1] * (target.ndim - 1))
        rest = target.masked_fill(rows, 0)
    result = torch.where(known, source.to(target), rest)
    for part, value in zip(parts, result.chunk(len(parts)), strict=True):
        part.copy_(value)
    return int(known.sum()) if isinstance(parts[0], nn.Parameter) else 0

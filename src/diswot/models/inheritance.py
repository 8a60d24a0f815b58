"""A student that begins with what fits of its teacher's weights.

Weight selection: Xu et al., "Initializing Models with Larger Ones", ICLR 2024.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from diswot.errors import UserError, unknown
from diswot.models.channels import ChannelMaps
from diswot.models.class_outputs import class_outputs, output_maps
from diswot.models.correspondence import LayerPair, corresponding
from diswot.models.hidden_channels import Graphs, HiddenChannels, hidden_channels
from diswot.models.inherited_weights import WeightCopier
from diswot.models.weighted_layers import Outline, WeightedLayer, outline
from diswot.observation.modes import estimate_statistics, require_network
from diswot.utils.notebook import data_frame, html_table

if TYPE_CHECKING:
    from pandas import DataFrame

CHANNELS = ("even", "norm")
_SHOWN = 3


@dataclass(frozen=True)
class InheritedLayer:
    """What a layer of the student has from the teacher.

    Attributes:
        module: Path of the layer in the student.
        source: Path of the layer in the teacher; empty if nothing is inherited.
        params: Number of the layer's parameters.
        share: Share of these parameters that is inherited, 0 to 1.
    """

    module: str
    source: str
    params: int
    share: float


@dataclass(frozen=True, repr=False)
class Inheritance:
    """What a student has from its teacher.

    Attributes:
        rows: One row for each layer of the student.
        channels: How channels were chosen: `even` or `norm`.
        images: Number of images that batch-norm statistics were estimated on; 0 if the statistics
            are the teacher's.
    """

    rows: tuple[InheritedLayer, ...]
    channels: str
    images: int = 0

    @property
    def params(self) -> int:
        """Number of the student's parameters."""
        return sum(row.params for row in self.rows)

    @property
    def share(self) -> float:
        """Share of the student's parameters that is inherited, 0 to 1."""
        return sum(row.params * row.share for row in self.rows) / max(1, self.params)

    def to_dataframe(self) -> DataFrame:
        """Return a pandas data frame with a row for each layer of the student."""
        return data_frame(map(asdict, self.rows), "module")

    def __repr__(self) -> str:
        taken = sum(bool(row.source) for row in self.rows)
        return (
            f"Inheritance({self.share:.1%} of {self.params} parameters, {taken} of "
            f"{len(self.rows)} layers, channels {self.channels!r})"
        )

    def _repr_html_(self) -> str:
        """Return the table of all layers, for notebooks."""
        rows = [(r.module, r.source or "-", r.params, f"{r.share:.1%}") for r in self.rows]
        columns = ("layer", "from", "params", "share")
        return f"<p>{escape(repr(self))}</p>{html_table(columns, rows)}"


@dataclass(frozen=True)
class TeacherLayers:
    """The layers of a teacher, which are found once for all students that inherit from it.

    Attributes:
        model: Trained network.
        graphs: Graphs of the blocks of the teacher and of its students, by their form, so that
            each form is traced once.
    """

    model: nn.Module
    graphs: Graphs = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def outline(self) -> Outline:
        """The layers with weights, by stage and block."""
        return outline(self.model)

    @cached_property
    def hidden(self) -> set[tuple[object, ...]]:
        """The hidden channels of the blocks, by the layers that write and read them."""
        paths = _hidden_channels(self.model, self.outline, self.graphs)
        return {(path.writer, path.between, path.reader) for path in paths}


@torch.no_grad()
def inherit(
    teacher: nn.Module | TeacherLayers,
    student: nn.Module,
    batches: Iterable[Tensor | tuple[Tensor, Tensor]] = (),
    *,
    channels: str = "norm",
    teacher_classes: Sequence[str] | None = None,
    student_classes: Sequence[str] | None = None,
) -> Inheritance:
    """Copy what fits of a trained teacher's weights into a student, in place.

    Stages correspond by their number. Block i of m takes block round(i (n - 1) / (m - 1)) of n.
    If the student has fewer channels, a channel that one layer drops is dropped in all layers that
    read it. Channels that the teacher lacks stay fresh, and inherited channels do not read them.
    Kernels are cropped or padded with zeros, patches and positional embeddings are resized,
    attention is taken by whole heads.

    Fresh stay concatenated maps of other widths, grouped convolutions with other groups, blocks of
    a form that the teacher's stage lacks, and networks of other depths without blocks (VGG).

    Args:
        teacher: Trained network, which is not changed; or its layers, found before.
        student: Network of any architecture; what it does not inherit stays as it is.
        batches: Normalised images, B x 3 x H x W, alone or with labels, for batch-norm statistics
            of all but a whole teacher. Default: the statistics are the teacher's.
        channels: How fewer channels are chosen: `norm`, those with the largest weights, which
            measures better; or `even`, evenly spaced, which is faster.
        teacher_classes: Names of the teacher's classes in order. Default: the student's classes.
        student_classes: Names of the student's classes in order; only with `teacher_classes`.

    Raises:
        UserError: Nothing fits, or an argument is impossible.
    """
    if channels not in CHANNELS:
        raise unknown("choice of channels", channels, CHANNELS)
    if (teacher_classes is None) != (student_classes is None):
        raise UserError("give the classes of both the teacher and the student, or of neither")
    parts = teacher if isinstance(teacher, TeacherLayers) else TeacherLayers(teacher)
    require_network("teacher", parts.model)
    require_network("student", student)
    if parts.model is student:
        raise UserError("a student cannot inherit from itself")
    given, own = parts.outline, outline(student)
    pairs = corresponding(given, own)
    hidden = _hidden(parts, student, own, pairs) if channels == "norm" else ()
    outputs = class_outputs(parts.model, given.layers), class_outputs(student, own.layers)
    last = output_maps(*outputs, pairs, teacher_classes, student_classes)
    copier = WeightCopier(pairs, given.layers, ChannelMaps(pairs, channels == "norm", hidden), last)
    rows = tuple(_row(pair, copier.copy(*pair)) for pair in pairs)
    if not any(row.share for row in rows):
        raise UserError(_nothing(given, own))
    images = 0 if _is_whole(given, pairs) else estimate_statistics(student, map(_images, batches))
    return Inheritance(rows, channels, images)


def _row(pair: LayerPair, taken: int) -> InheritedLayer:
    student, teacher = pair
    params = student.params
    source = teacher.name if teacher is not None and taken else ""
    return InheritedLayer(student.name, source, params, taken / params if params else 0.0)


def _is_whole(teacher: Outline, pairs: Sequence[LayerPair]) -> bool:
    """Whether the student has all layers of the teacher, in their sizes."""
    alike = all(other and layer.params == other.params for layer, other in pairs)
    return alike and [other for _, other in pairs] == teacher.layers


def _images(batch: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    return batch if isinstance(batch, Tensor) else batch[0]


def _hidden(
    teacher: TeacherLayers, student: nn.Module, own: Outline, pairs: Sequence[LayerPair]
) -> list[HiddenChannels]:
    """Return the hidden channels of the student's blocks that are hidden in the teacher too."""
    of = dict(pairs)

    def source(path: HiddenChannels) -> tuple[object, ...]:
        return of[path.writer], tuple(of[layer] for layer in path.between), of[path.reader]

    return [
        path
        for path in _hidden_channels(student, own, teacher.graphs)
        if source(path) in teacher.hidden
    ]


def _hidden_channels(model: nn.Module, parts: Outline, graphs: Graphs) -> list[HiddenChannels]:
    layers: dict[nn.Module, WeightedLayer] = {layer.module: layer for layer in parts.layers}
    blocks = [block for stage in parts.stages for block in stage.blocks]
    return [
        path
        for block in blocks
        for path in hidden_channels(model.get_submodule(block.name), layers, graphs)
    ]


def _nothing(teacher: Outline, student: Outline) -> str:
    """Return the error for a student that inherits nothing."""
    both = "; ".join(
        f"the {role} is {_kinds(parts)}"
        for role, parts in (("teacher", teacher), ("student", student))
    )
    return (
        f"the student can inherit nothing: no layer of the teacher fits one of its layers; {both}"
    )


def _kinds(parts: Outline) -> str:
    """Describe a network by the kinds of its layers."""
    kinds = list(dict.fromkeys(layer.kind for layer in parts.layers))
    blocks = sum(len(stage.blocks) for stage in parts.stages)
    shown = ", ".join(kinds[:_SHOWN]) or "no layers with weights"
    return f"{blocks} blocks of {shown}" if blocks else shown

"""What brings a student's maps to the teacher's shape, before a distance that needs one shape.

Adapting is a step of its own: it returns observations whose `stages` are pairs. Stages are paired
by relative depth. Where a distance needs one grid, both maps are pooled to the smaller. Where it
needs one width, the student's channels are mapped to the teacher's: at initialisation, for a
proxy, by a fixed random orthogonal matrix; in training, for a loss, by a learned 1x1 convolution
that starts as that matrix.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, conv2d

from diswot.knowledge.stages import Pair, pair, single
from diswot.observation.observe import Observation

SEED = 2303  # of the fixed projections


@dataclass(frozen=True)
class Adapter:
    """Which stages are compared, and how the maps of a pair are brought together.

    Attributes:
        stages: `all` pairs, the `middle` one (the deeper of two) or the `last`.
        grids: Whether both maps are pooled to the smaller grid.
        widths: Whether the student's channels are mapped where the widths differ.
        always: Whether a loss learns that map also where they do not differ.
    """

    stages: str = "all"
    grids: bool = False
    widths: bool = False
    always: bool = False

    @property
    def summary(self) -> str:
        """One line."""
        parts = [f"{self.stages} stages by depth" if self.stages == "all" else self.stages]
        parts += ["pooled to the smaller grid"] * self.grids
        where = "" if self.always else "other "
        mapped = f"{where}widths: fixed orthogonal projection (proxy), learned 1x1 (loss)"
        return ", ".join(parts + [mapped] * self.widths)


def adapt(
    adapter: Adapter, teacher: Observation, student: Observation
) -> tuple[Observation, Observation]:
    """Bring the stages together without anything learned, as for a proxy.

    The same widths always meet the same projection, so that all candidates are treated alike.
    """
    pairs = _pairs(adapter, teacher, student)
    if adapter.widths:
        pairs = [(ours, _projected(theirs, ours.shape[1])) for ours, theirs in pairs]
    return _with(teacher, student, pairs)


class Learned(nn.Module):
    """The same with a learned 1x1 convolution, with bias, wherever channels are mapped.

    Args:
        adapter: What to do.
        teacher: Observed, for the shapes of its stages.
        student: Likewise.
    """

    def __init__(self, adapter: Adapter, teacher: Observation, student: Observation) -> None:
        super().__init__()
        self.adapter = adapter
        pairs = _pairs(adapter, teacher, student)
        self.maps = nn.ModuleList([self._map(theirs, ours.shape[1]) for ours, theirs in pairs])

    def _map(self, student: Tensor, outputs: int) -> nn.Module:
        inputs = student.shape[1]
        same = outputs == inputs
        if not self.adapter.widths or (same and not self.adapter.always):
            return nn.Identity()
        layer = nn.Conv2d(inputs, outputs, 1, device="meta").to_empty(device=student.device)
        start = torch.eye(inputs) if same else _fixed(outputs, inputs)
        with torch.no_grad():
            layer.weight.copy_(start[:, :, None, None])
            if layer.bias is not None:
                layer.bias.zero_()
        return layer

    def forward(
        self, teacher: Observation, student: Observation
    ) -> tuple[Observation, Observation]:
        """Bring the stages together."""
        layers = zip(self.maps, _pairs(self.adapter, teacher, student), strict=True)
        pairs = [(ours, layer(single(theirs))) for layer, (ours, theirs) in layers]
        return _with(teacher, student, pairs)


def orthogonal(outputs: int, inputs: int, generator: Generator) -> Tensor:
    """A random matrix, outputs x inputs, with orthonormal rows or columns, whichever are fewer.

    Args:
        outputs: Number of rows.
        inputs: Number of columns.
        generator: On the CPU.
    """
    shape = max(outputs, inputs), min(outputs, inputs)
    basis, triangle = torch.linalg.qr(torch.randn(shape, generator=generator, dtype=torch.float64))
    matrix: Tensor = (basis * triangle.diagonal().sign()).float()
    return matrix if outputs >= inputs else matrix.T


@functools.lru_cache(maxsize=64)
def _fixed(outputs: int, inputs: int) -> Tensor:
    return orthogonal(outputs, inputs, Generator().manual_seed(SEED))


def pool(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Average B x C x H x W down to a grid; a map of that grid stays as it is."""
    if maps.shape[2:] == grid:
        return maps
    pooled: Tensor = adaptive_avg_pool2d(single(maps), grid)
    return pooled


def _pairs(adapter: Adapter, teacher: Observation, student: Observation) -> list[Pair]:
    """The pairs of maps that are compared, before channels are mapped."""
    pairs = pair(teacher.stages, student.stages)
    chosen = {"all": slice(None), "last": slice(-1, None)}
    middle = len(pairs) // 2
    pairs = pairs[chosen.get(adapter.stages, slice(middle, middle + 1))]
    return [_pooled(*maps) for maps in pairs] if adapter.grids else pairs


def _pooled(teacher: Tensor, student: Tensor) -> Pair:
    grid = min(teacher.shape[2], student.shape[2]), min(teacher.shape[3], student.shape[3])
    return pool(teacher, grid), pool(student, grid)


def _projected(maps: Tensor, width: int) -> Tensor:
    if maps.shape[1] == width:
        return maps
    maps = single(maps)
    return conv2d(maps, _fixed(width, maps.shape[1]).to(maps)[:, :, None, None])


def _with(
    teacher: Observation, student: Observation, pairs: list[Pair]
) -> tuple[Observation, Observation]:
    ours, theirs = zip(*pairs, strict=True)
    return replace(teacher, stages=ours), replace(student, stages=theirs)

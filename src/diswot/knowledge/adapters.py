"""What brings a student's maps to the teacher's shape, before a distance that needs one shape.

An adapter returns observations whose `stages` are pairs, as `stages.pair_stages` forms them. Where
a distance needs one grid, both maps are pooled to the smaller grid. Where it needs one width, the
student's channels are mapped to the teacher's: in a proxy by a fixed random orthogonal matrix, in a
loss by a learned 1x1 convolution that starts as that matrix.

Letters: B images, C channels, H x W positions.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, conv2d

from diswot.errors import unknown
from diswot.knowledge.stages import Pair, at_least_float32, pair_stages
from diswot.observation.observe import Observation

SEED = 2303  # of the fixed projections


@dataclass(frozen=True)
class Adapter:
    """Which stages are compared, and how the maps of a pair are brought to one shape.

    Attributes:
        stages: `all` pairs, the `middle` one (the deeper of two) or the `last`.
        grids: Whether both maps are pooled to the smaller grid.
        widths: Whether the student's channels are mapped where the widths differ.
        always: Whether a loss learns that map also where the widths are equal.
    """

    stages: str = "all"
    grids: bool = False
    widths: bool = False
    always: bool = False

    @property
    def summary(self) -> str:
        """The adapter's steps in one line."""
        parts = [f"{self.stages} stages by depth" if self.stages == "all" else self.stages]
        parts += ["pooled to the smaller grid"] * self.grids
        where = "" if self.always else "other "
        mapped = f"{where}widths: fixed orthogonal projection (proxy), learned 1x1 (loss)"
        return ", ".join(parts + [mapped] * self.widths)


def adapt(
    adapter: Adapter, teacher: Observation, student: Observation
) -> tuple[Observation, Observation]:
    """Bring the stages to one shape with fixed projections, as for a proxy.

    A projection depends on the two widths alone, so all candidates are treated alike.
    """
    pairs = _pairs(adapter, teacher, student)
    if adapter.widths:
        pairs = [(map_t, _projected(map_s, map_t.shape[1])) for map_t, map_s in pairs]
    return _with_stages(teacher, student, pairs)


class LearnedAdapter(nn.Module):
    """An adapter of a loss, with a learned 1x1 convolution with bias wherever channels are mapped.

    The shapes of the stages are taken from the two observations.
    """

    def __init__(self, adapter: Adapter, teacher: Observation, student: Observation) -> None:
        super().__init__()
        self.adapter = adapter
        pairs = _pairs(adapter, teacher, student)
        self.maps = nn.ModuleList([self._map(map_s, map_t.shape[1]) for map_t, map_s in pairs])

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
        """Bring the stages to one shape, as `adapt` does."""
        layers = zip(self.maps, _pairs(self.adapter, teacher, student), strict=True)
        pairs = [(map_t, layer(at_least_float32(map_s))) for layer, (map_t, map_s) in layers]
        return _with_stages(teacher, student, pairs)


def orthogonal(outputs: int, inputs: int, generator: Generator) -> Tensor:
    """Draw a matrix, outputs x inputs, with orthonormal rows or columns, whichever are fewer."""
    shape = max(outputs, inputs), min(outputs, inputs)
    basis, triangle = torch.linalg.qr(torch.randn(shape, generator=generator, dtype=torch.float64))
    matrix: Tensor = (basis * triangle.diagonal().sign()).float()
    return matrix if outputs >= inputs else matrix.T


@functools.lru_cache(maxsize=64)
def _fixed(outputs: int, inputs: int) -> Tensor:
    return orthogonal(outputs, inputs, Generator().manual_seed(SEED))


def _pool(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Average maps, B x C x H x W, down to a grid; a map on that grid is returned as it is."""
    if maps.shape[2:] == grid:
        return maps
    pooled: Tensor = adaptive_avg_pool2d(at_least_float32(maps), grid)
    return pooled


def _pairs(adapter: Adapter, teacher: Observation, student: Observation) -> list[Pair]:
    """Return the pairs of maps that are compared, before channels are mapped."""
    pairs = pair_stages(teacher, student)
    middle = len(pairs) // 2
    chosen = {
        "all": slice(None),
        "middle": slice(middle, middle + 1),
        "last": slice(-1, None),
    }
    if adapter.stages not in chosen:
        raise unknown("stages of an adapter", adapter.stages, chosen)
    pairs = pairs[chosen[adapter.stages]]
    return [on_one_grid(*maps) for maps in pairs] if adapter.grids else pairs


def on_one_grid(teacher: Tensor, student: Tensor) -> Pair:
    """Average two maps down to the smaller height and the smaller width."""
    grid = min(teacher.shape[2], student.shape[2]), min(teacher.shape[3], student.shape[3])
    return _pool(teacher, grid), _pool(student, grid)


def _projected(maps: Tensor, width: int) -> Tensor:
    if maps.shape[1] == width:
        return maps
    maps = at_least_float32(maps)
    return conv2d(maps, _fixed(width, maps.shape[1]).to(maps)[:, :, None, None])


def _with_stages(
    teacher: Observation, student: Observation, pairs: list[Pair]
) -> tuple[Observation, Observation]:
    maps_t, maps_s = zip(*pairs, strict=True)
    return replace(teacher, stages=maps_t, strides=()), replace(student, stages=maps_s, strides=())

"""Which outputs of modules are feature maps, and which maps end a resolution stage.

Letters: B images, C channels, D features of a token, H x W positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

_MAX_PREFIX_TOKENS = 5  # a class token, a distillation token, registers
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass
class StageMap:
    """A feature map that ends a stage, with the version of its memory when it was recorded.

    Attributes:
        name: Name of the module that returned the map.
        depth: Number of blocks around that module.
        map: B x C x H x W.
        origin: The module's output, from which `map` was laid out.
        version: Version counter of `origin` when it was recorded.
        after_pooling: Whether the map is the result of global pooling.
    """

    name: str
    depth: int
    map: Tensor
    origin: Tensor
    version: int
    after_pooling: bool


def as_map(output: Tensor, image_size: tuple[int, int]) -> Tensor | None:
    """Lay out the output of a module as a map.

    A map has the aspect ratio of the image and is no larger than the image.

    Args:
        output: B x C x H x W; B x H x W x C, which is tried second; or tokens, with up to five of
            them before the grid.
        image_size: Height and width in pixels.

    Returns:
        B x C x H x W, or None if the output is no map.
    """
    if output.ndim == 4:
        if _fits(output.shape[2], output.shape[3], image_size):
            return output
        if _fits(output.shape[1], output.shape[2], image_size):
            return output.permute(0, 3, 1, 2)
    if output.ndim == 3:
        return _tokens_as_map(output, image_size)
    return None


def _tokens_as_map(tokens: Tensor, image_size: tuple[int, int]) -> Tensor | None:
    height, width = image_size
    batch, length, features = tokens.shape
    for prefix in range(min(_MAX_PREFIX_TOKENS, length - 1) + 1):
        count = length - prefix
        rows = round((count * height / width) ** 0.5)
        if rows and count % rows == 0 and _fits(rows, count // rows, image_size):
            grid = tokens[:, prefix:].transpose(1, 2)
            return grid.reshape(batch, features, rows, count // rows)
    return None


def _fits(rows: int, columns: int, image_size: tuple[int, int]) -> bool:
    """Whether a grid has the image's aspect ratio, to within one cell, and is no larger."""
    height, width = image_size
    skew = abs(rows * width - columns * height)
    return 1 <= rows <= height and 1 <= columns <= width and skew < max(height, width)


def add_stage_map(
    maps: list[StageMap], candidate: StageMap, module: nn.Module, inputs: Tensor
) -> bool:
    """Add a map to the maps that end the stages so far, if it ends one.

    The maps shrink from first to last. Of two maps of one resolution the one of the outermost
    module is kept, and of two equally deep ones the later. If a map is larger than the last one,
    smaller maps before it were a side branch, as in squeeze-and-excitation, and are dropped. But
    if the larger map lies deeper, it is a side branch itself, such as a matrix of attention.

    Args:
        maps: Maps that end the stages so far; changed in place.
        candidate: The new map. Its `after_pooling` is set here.
        module: Module that returned the new map.
        inputs: Its first input.

    Returns:
        Whether the map was added.
    """
    if _enlarges(module, inputs, candidate.origin):
        return False
    cells = _cells(candidate.map)
    while maps and _cells(maps[-1].map) < cells and candidate.depth <= maps[-1].depth:
        maps.pop()
    peer = maps[-1] if maps and _cells(maps[-1].map) <= cells else None
    if peer is not None and candidate.depth > peer.depth:
        return False
    pooled = cells == 1 and _pools(module, inputs, first=peer is None)
    if peer is not None and (peer.after_pooling or not pooled):
        pooled = peer.after_pooling
        maps.pop()
    candidate.after_pooling = pooled
    maps.append(candidate)
    return True


def _cells(features: Tensor) -> int:
    return features.shape[2] * features.shape[3]


def _pools(module: nn.Module, inputs: Tensor, *, first: bool) -> bool:
    """Whether a 1 x 1 map comes from global pooling.

    The first 1 x 1 map does, unless a layer with parameters, a local maximum or a selection of
    tokens made it. A later one does if the class name of the module contains "Pool". A single
    class token is no map.
    """
    if not first:
        return "Pool" in type(module).__name__
    if inputs.ndim == 3:
        return inputs.shape[1] == 1
    if inputs.ndim != 4 or isinstance(module, nn.MaxPool2d):
        return False
    return not _has_parameters(module) or inputs.shape[2:].numel() == 1


def _enlarges(module: nn.Module, inputs: Tensor, output: Tensor) -> bool:
    """Whether a module without parameters enlarged the map, as pooling to a fixed grid may."""
    if inputs.ndim != 4 or output.ndim != 4:
        return False
    return inputs.shape[2:].numel() < output.shape[2:].numel() and not _has_parameters(module)


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def block_depths(modules: Mapping[str, nn.Module]) -> dict[str, int]:
    """Count the blocks around each module, by name; a container of blocks is no block.

    The modules are all of a network, parents before children.
    """
    depths, holds = {"": -1}, {"": False}
    for name, module in modules.items():
        if name:
            parent = name.rpartition(".")[0]
            holds[name] = _holds_blocks(module)
            depths[name] = depths[parent] + (not holds[parent])
    return depths


def _holds_blocks(module: nn.Module) -> bool:
    """Whether a plain container holds modules whose parts have parameters, or such containers."""
    if not isinstance(module, CONTAINERS):
        return False
    children = list(module.children())
    parts = [
        part for child in children if not isinstance(child, CONTAINERS) for part in child.children()
    ]
    return any(map(_has_parameters, parts)) or any(map(_holds_blocks, children))

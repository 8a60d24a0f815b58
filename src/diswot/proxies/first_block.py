"""How rough the map of a network's first block is, averaged over draws of its weights.

One draw of weights ranks networks by chance as much as by their architecture. This holds above all
if the first layer has few filters, as a depthwise convolution of three colours has. The first block
costs a small part of a forward pass, which allows many draws. A map has many positions, so few
images are enough.

Letters: B images, C channels, H x W positions. Which modules are blocks is defined in `blocks`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from statistics import fmean

import torch
from torch import Tensor, nn

from diswot.models.initialization import INITS, NORMS, WEIGHTED, derive_seed
from diswot.observation.modes import hooked, measuring
from diswot.proxies.blocks import map_of, primary_blocks

DRAWS = 16
IMAGES = 4  # of the batch, others in each draw
BORDER = 8  # this share of a side, at each end, is left out: padding makes steps there


def first_block_roughness(model: nn.Module, images: Tensor, seed: int) -> float | None:
    """Measure the roughness of the first block's map, averaged over 16 draws of Kaiming weights.

    Each draw runs the network on four images up to its first block. Weights are drawn layer by
    layer in running order, from the seed and the number of the draw alone. So networks that begin
    with the same layers get the same weights there. The network keeps its own weights.

    Returns:
        Nats; see `roughness`. None if no block returns a map.
    """
    blocks, found = primary_blocks(model), []
    with torch.no_grad(), measuring(model), _redrawn(model) as draw:
        for number in range(DRAWS):
            draw(derive_seed(seed, number))
            found.append(_first_map(model, blocks, _images_of_draw(images, number)))
    maps = [roughness(one) for one in found if one is not None]
    return fmean(maps) if maps else None


def _images_of_draw(images: Tensor, number: int) -> Tensor:
    """Return the next four images, from the first again after the last."""
    count = min(IMAGES, len(images))
    places = torch.arange(number * count, (number + 1) * count, device=images.device)
    return images[places % len(images)]


class _Stop(Exception):
    """Ends a forward pass after the first block."""


def _first_map(model: nn.Module, blocks: list[nn.Module], images: Tensor) -> Tensor | None:
    """Run a network up to the first of its blocks that returns a map; return that map."""
    found: list[Tensor] = []

    def stop(block: nn.Module, inputs: object, output: object) -> None:
        features = map_of(output, images)
        if features is not None:
            found.append(features)
            raise _Stop

    with hooked(blocks, stop), suppress(_Stop):
        model(images)
    return found[0] if found else None


@contextmanager
def _redrawn(model: nn.Module) -> Iterator[Callable[[int], None]]:
    """Yield a function of a seed, after which each layer draws Kaiming weights when it first runs.

    The parameters of the layers are put back at the end. A weight that is computed from other
    parameters is not drawn.
    """
    generator = torch.Generator()
    own: dict[nn.Module, dict[str, nn.Parameter]] = {}
    drawn: set[nn.Module] = set()

    def begin(seed: int) -> None:
        generator.manual_seed(seed)
        drawn.clear()

    def draw(module: nn.Module, inputs: object = None) -> None:
        held = dict(module.named_parameters(recurse=False))
        if module in drawn or "weight" not in held:
            return
        drawn.add(module)
        kept = own.setdefault(module, held)
        fresh = {name: _frozen(torch.empty(p.shape, device="cpu")) for name, p in kept.items()}
        _set_parameters(module, fresh)
        INITS["kaiming"](module, generator)  # drawn on the CPU, the same for all devices
        _set_parameters(module, {name: _frozen(fresh[name].to(p)) for name, p in kept.items()})

    with ExitStack() as stack:
        try:
            for module in model.modules():
                if isinstance(module, NORMS):
                    draw(module)
                elif isinstance(module, WEIGHTED):
                    stack.enter_context(module.register_forward_pre_hook(draw))
            yield begin
        finally:
            for module, kept in own.items():
                _set_parameters(module, kept)


def _set_parameters(module: nn.Module, parameters: Mapping[str, nn.Parameter]) -> None:
    for name, parameter in parameters.items():
        module.register_parameter(name, parameter)


def _frozen(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values, requires_grad=False)


def roughness(features: Tensor) -> float:
    """Return the log of the mean squared step to the next position over the variance, in nats.

    The mean squares of steps down and of steps across are added, so that white noise has log 4.
    Smoothing, such as pooling, lowers the value. The variance is that within an image; the
    brightness of whole images is no detail. An eighth of each side is left out at each end. The
    value is minus infinity if the map, B x C x H x W, does not vary.
    """
    down, across = (size // BORDER for size in features.shape[2:])
    height, width = features.shape[2:]
    inner = features[..., down : height - down, across : width - across].double()
    variance = inner.var((2, 3), correction=0).mean()
    steps = sum(inner.diff(dim=dim).square().mean() for dim in (2, 3) if inner.shape[dim] > 1)
    return math.log(steps / variance) if variance > 0 and steps > 0 else -math.inf

"""How the first blocks of a network show images, in the mean over draws of their weights.

One draw of weights ranks networks by chance as much as by what they are; the first blocks cost
little of a pass, so that many draws can be had. Few images are enough: a map has many positions.

Letters: B batch, C channels, H x W positions. Which modules are blocks is said in `blocks`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import astuple, dataclass
from statistics import fmean

import torch
from torch import Tensor, nn

from diswot.models.initialization import INITS, NORMS, WEIGHTED, derive_seed
from diswot.observation.observe import measuring
from diswot.proxies.blocks import map_of, primary_blocks
from diswot.proxies.eigen import eigenvalues, spectral_entropy

DRAWS = 8
IMAGES = 8  # of the batch, others with each draw; tokens of fewer are too much alike
BLOCKS = 5  # at most: transformers have one resolution, and all their blocks at it


@dataclass(frozen=True)
class Opening:
    """How the first blocks of a network show images.

    Attributes:
        roughness: Of the first block's map; see `roughness`.
        entropy: Of the channels' correlations in that map, in nats.
        last_entropy: The same of the last block at the resolution and width of the first, of the
            first five if there are more.
    """

    roughness: float
    entropy: float
    last_entropy: float


def opening(model: nn.Module, images: Tensor, seed: int) -> Opening | None:
    """How a network opens, in the mean over 8 draws of Kaiming weights with eight images each.

    Each draw runs the network as far as the first block of another shape, or the fifth. Weights are
    drawn layer by layer, as they run, from the seed and the draw's number alone: networks that
    begin alike get the same. The network keeps its own.

    Args:
        model: Any network.
        images: Normalised, B x 3 x H x W.
        seed: Of the weights.

    Returns:
        None if no block gives a map.
    """
    with torch.no_grad(), measuring(model), _redrawn(model) as draw, _first_maps(model) as run:
        found = []
        for number in range(DRAWS):
            draw(derive_seed(seed, number))
            found.append(run(_part(images, number)))
    drawn = [one for one in found if one]
    return Opening(*map(fmean, zip(*map(astuple, drawn), strict=True))) if drawn else None


def _part(images: Tensor, number: int) -> Tensor:
    """The images of one draw: the next eight, and again from the first."""
    several = min(IMAGES, len(images))
    places = torch.arange(number * several, (number + 1) * several, device=images.device)
    return images[places % len(images)]


class _Enough(Exception):
    """A network has run as far as it needs to."""


@contextmanager
def _first_maps(model: nn.Module) -> Iterator[Callable[[Tensor], Opening | None]]:
    """Runs a network as far as its blocks give maps of the shape of the first one's."""
    images, first, count = torch.empty(0), torch.Size(), BLOCKS
    rough, correlations = -math.inf, list[Tensor]()

    def see(block: nn.Module, inputs: object, output: object) -> None:
        nonlocal first, rough
        features = map_of(output, images)
        if features is None:
            return
        if not correlations:
            first, rough = features.shape, roughness(features)
        if features.shape != first:
            raise _Enough
        correlations.append(channel_correlations(features))
        if len(correlations) == count:
            raise _Enough

    def run(given: Tensor) -> Opening | None:
        nonlocal images, count
        images = given
        correlations.clear()
        with suppress(_Enough):
            model(images)
        if not correlations:
            return None
        count = len(correlations)  # the next run goes no further
        return Opening(rough, *(_entropy(correlations[place]) for place in (0, -1)))

    with ExitStack() as stack:
        for block in primary_blocks(model):
            stack.enter_context(block.register_forward_hook(see))
        yield run


@contextmanager
def _redrawn(model: nn.Module) -> Iterator[Callable[[int], None]]:
    """Every layer draws Kaiming weights when it first runs after each call with a seed.

    Its own parameters are put aside; a weight that is computed from others stays as it is.
    """
    generator = torch.Generator()
    own: dict[nn.Module, dict[str, nn.Parameter | None]] = {}
    drawn: set[nn.Module] = set()

    def begin(seed: int) -> None:
        generator.manual_seed(seed)
        drawn.clear()

    def draw(module: nn.Module, inputs: object = None) -> None:
        if module in drawn or module._parameters.get("weight") is None:
            return
        drawn.add(module)
        kept = own.setdefault(module, dict(module._parameters))
        held = {name: p for name, p in kept.items() if p is not None}
        fresh = {name: _unlearned(torch.empty(p.shape, device="cpu")) for name, p in held.items()}
        module._parameters.update(fresh)
        INITS["kaiming"](module, generator)  # drawn on the processor, alike for all devices
        there = {name: _unlearned(fresh[name].to(p)) for name, p in held.items()}
        module._parameters.update(there)

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
                module._parameters.update(kept)


def _unlearned(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values, requires_grad=False)


def _entropy(matrix: Tensor) -> float:
    return spectral_entropy(eigenvalues(matrix))


def roughness(features: Tensor) -> float:
    """Logarithm of the mean squared step to the next position, over the variance, in nats.

    Steps down and steps across are averaged each and added, so that white noise has log 4. What
    smooths, as pooling does, lowers it; a map that does not vary has minus infinity.

    Args:
        features: B x C x H x W.
    """
    features = features.double()
    variance = features.var((0, 2, 3), correction=0).mean()
    steps = sum(features.diff(dim=dim).square().mean() for dim in (2, 3) if features.shape[dim] > 1)
    return math.log(steps / variance) if variance > 0 and steps > 0 else -math.inf


def channel_correlations(features: Tensor) -> Tensor:
    """Pearson's correlations of the channels over all positions of all images, C x C.

    A channel that does not vary has none, with itself either.

    Args:
        features: B x C x H x W.
    """
    samples = features.movedim(1, -1).flatten(0, -2)
    samples = samples - samples.mean(0)
    samples = samples / samples.abs().amax(0).clamp_min(torch.finfo(samples.dtype).tiny)
    square = samples.T @ samples
    deviation = square.diagonal().sqrt()
    unit = torch.where(deviation > 0, 1 / deviation, 0)
    return square * unit * unit[:, None]

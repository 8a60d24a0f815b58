"""What one forward pass shows of how a network is built: its working layers, and its blocks.

Letters: B batch, C channels, H x W positions. Which modules are blocks is said in `blocks`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial

import torch
from torch import Tensor, nn

from diswot.proxies.blocks import layers, map_of, primary_blocks
from diswot.proxies.paths import Call
from diswot.proxies.recorders import Watch


class Anatomy(Watch):
    """Catches which layers work, and how wide the block of each is.

    A layer works if it gives a map that differs between the first two images: not one that is
    never run, or is fed with zeros only.

    Attributes:
        size: Sum over working layers of C log2(1 + k / sqrt(groups)), C the channels of the map
            of the layer's block and k the side of its kernel, 1 for a linear layer.
        calls: The first block of each shape that gives a map of the shape that it takes.
    """

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        super().__init__(model, images)
        self.size = 0.0
        self.calls: dict[torch.Size, Call] = {}
        self._reach: dict[nn.Module, float] = {}

    def hooks(self) -> Iterator[AbstractContextManager[object]]:
        """One hook a layer and one a block."""
        blocks = primary_blocks(self.model)
        for block in blocks:
            inner = layers(block)
            for layer in inner:
                yield layer.register_forward_hook(self._see_layer)
            yield block.register_forward_hook(partial(self._see_block, inner), with_kwargs=True)

    def _see_layer(self, layer: nn.Module, inputs: object, output: object) -> None:
        if self.active and _differs(output, len(self.images)):
            self._reach[layer] = _reach(layer)

    def _see_block(
        self,
        inner: list[nn.Module],
        block: nn.Module,
        inputs: tuple[object, ...],
        named: dict[str, object],
        output: object,
    ) -> None:
        if not self.active:
            return
        features = map_of(output, self.images)
        taken = inputs[0] if inputs else None
        given = output[0] if isinstance(output, tuple) else output
        if features is None:
            if isinstance(given, Tensor) and _of_parts(given, len(self.images)):
                self.size += given.shape[2] * self._held(inner)
            return
        if isinstance(taken, Tensor) and isinstance(given, Tensor) and taken.shape == given.shape:
            call = Call(block, (1, *taken.shape[1:]), inputs[1:], named)
            self.calls.setdefault(taken.shape, call)
        self.size += features.shape[1] * self._held(inner)

    def _held(self, inner: list[nn.Module]) -> float:
        return math.fsum(self._reach.pop(layer, 0.0) for layer in inner)


def _of_parts(output: Tensor, batch: int) -> bool:
    """Whether these are tokens of parts of each image, in the place of images, as in MobileViT."""
    return output.ndim == 3 and len(output) > batch and len(output) % batch == 0


def _reach(layer: nn.Module) -> float:
    """How far a layer looks: log2(1 + k), less where groups keep channels apart."""
    kernel = getattr(layer, "kernel_size", (1,))
    side = math.prod(kernel) ** (1 / len(kernel))
    return math.log2(1 + side / math.sqrt(getattr(layer, "groups", 1)))


def _differs(output: object, batch: int) -> bool:
    """Whether this is a map, or tokens, of which those of the first two images differ."""
    if not isinstance(output, Tensor) or output.ndim < 3 or len(output) % batch:
        return False
    step = len(output) // batch
    return not torch.equal(output[:step], output[step : 2 * step])

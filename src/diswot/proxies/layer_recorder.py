"""The working layers of a network and the calls of its blocks, from one forward pass.

Letters: B images, C channels, H x W positions. Which modules are blocks is defined in `blocks`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial

import torch
from torch import Tensor, nn

from diswot.proxies.blocks import layers, map_of, primary_blocks
from diswot.proxies.paths import BlockCall
from diswot.proxies.recorders import Recorder


class LayerRecorder(Recorder):
    """Recorder of the working layers, and of the width of each layer's block.

    A layer works if its output is a map that differs between the first two images. A layer that
    is never run, or whose input is zero, does not work.

    Attributes:
        size: Sum over working layers of C log2(1 + k / sqrt(groups)). C is the number of channels
            that the layer's block returns, k the side of the kernel, which is 1 for a linear layer.
        calls: First call of a block for each shape, among blocks that keep the shape of their
            input.
    """

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        super().__init__(model, images)
        self.size = 0.0
        self.calls: dict[torch.Size, BlockCall] = {}
        self._reach: dict[nn.Module, float] = {}

    def hooks(self) -> Iterator[AbstractContextManager[object]]:
        """Register one hook on each layer and one on each block."""
        blocks = primary_blocks(self.model)
        for block in blocks:
            inner = layers(block)
            for layer in inner:
                yield layer.register_forward_hook(self._record_layer)
            yield block.register_forward_hook(partial(self._record_block, inner), with_kwargs=True)

    def _record_layer(self, layer: nn.Module, inputs: object, output: object) -> None:
        if self.active and _differs(output, len(self.images)):
            self._reach[layer] = _reach(layer)

    def _record_block(
        self,
        inner: list[nn.Module],
        block: nn.Module,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        output: object,
    ) -> None:
        if not self.active:
            return
        features = map_of(output, self.images)
        first = args[0] if args else None
        result = output[0] if isinstance(output, tuple) else output
        if features is None:
            if isinstance(result, Tensor) and _of_patches(result, len(self.images)):
                self.size += result.shape[2] * self._total_reach(inner)
            return
        if isinstance(first, Tensor) and isinstance(result, Tensor) and first.shape == result.shape:
            call = BlockCall(block, (1, *first.shape[1:]), args[1:], kwargs)
            self.calls.setdefault(first.shape, call)
        self.size += features.shape[1] * self._total_reach(inner)

    def _total_reach(self, inner: list[nn.Module]) -> float:
        return math.fsum(self._reach.pop(layer, 0.0) for layer in inner)


def _of_patches(output: Tensor, batch: int) -> bool:
    """Whether the first dimension holds patches of each image, as in MobileViT."""
    return output.ndim == 3 and len(output) > batch and len(output) % batch == 0


def _reach(layer: nn.Module) -> float:
    """Return log2(1 + k / sqrt(groups)): how many positions and channels a layer mixes."""
    kernel = getattr(layer, "kernel_size", (1,))
    side = math.prod(kernel) ** (1 / len(kernel))
    return math.log2(1 + side / math.sqrt(getattr(layer, "groups", 1)))


def _differs(output: object, batch: int) -> bool:
    """Whether an output is a map, or tokens, that differ between the first two images."""
    if not isinstance(output, Tensor) or output.ndim < 3 or len(output) % batch:
        return False
    step = len(output) // batch
    return not torch.equal(output[:step], output[step : 2 * step])

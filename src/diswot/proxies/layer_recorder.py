"""The working layers of a network and the calls of its blocks, from one forward pass.

Letters: B images, C channels, H x W positions. Which modules are blocks is defined in `blocks`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import Tensor, nn

from diswot.proxies.blocks import layers, map_of, primary_blocks
from diswot.proxies.paths import BlockCall
from diswot.proxies.recorders import Recorder


class LayerSize(NamedTuple):
    """The size of a working layer.

    Attributes:
        weights: Number of weights, without biases.
        activations: Number of values that these weights give for one image, in the largest call
            if the layer runs several times.
    """

    weights: int
    activations: float


class LayerRecorder(Recorder):
    """Recorder of the sizes of the working layers, and of one call of a block for each shape.

    A layer works if its output is a map, or tokens, that differ between the first two images. A
    layer that is never run, or whose input is zero, does not work. The classifier returns no map,
    so it is not among the working layers. Layers are convolutions and linear layers, also the two
    inside an `nn.MultiheadAttention`.

    Attributes:
        sizes: Size of each working layer, by its weight; a weight that is shared counts once.
        calls: First call of a block for each shape, among blocks that keep the shape of their
            input.
    """

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        super().__init__(model, images)
        self.sizes: dict[nn.Parameter, LayerSize] = {}
        self.calls: dict[torch.Size, BlockCall] = {}

    def hooks(self) -> Iterator[AbstractContextManager[object]]:
        """Hook each layer and each block."""
        attentions = [m for m in self.model.modules() if isinstance(m, nn.MultiheadAttention)]
        for layer in [*layers(self.model), *attentions]:
            yield layer.register_forward_hook(self._record_layer)
        for block in primary_blocks(self.model):
            yield block.register_forward_hook(self._record_block, with_kwargs=True)

    def _record_layer(self, layer: nn.Module, inputs: object, output: Any) -> None:
        result = output[0] if isinstance(output, tuple) else output
        if isinstance(layer, nn.MultiheadAttention) and not layer.batch_first:
            result = result.transpose(0, 1)
        if not _differs(result, len(self.images)):
            return
        for weight in (p for p in layer.parameters() if p.ndim > 1):
            # the projection to queries, keys and values gives three maps
            maps = 3 if weight is getattr(layer, "in_proj_weight", None) else 1
            size = LayerSize(weight.numel(), maps * result.numel() / len(self.images))
            self.sizes[weight] = max(size, self.sizes.get(weight, size))

    def _record_block(
        self, block: nn.Module, args: tuple[object, ...], kwargs: dict[str, object], output: object
    ) -> None:
        if map_of(output, self.images) is None:
            return
        first = args[0] if args else None
        result = output[0] if isinstance(output, tuple) else output
        if isinstance(first, Tensor) and isinstance(result, Tensor) and first.shape == result.shape:
            call = BlockCall(block, (1, *first.shape[1:]), args[1:], kwargs)
            self.calls.setdefault(first.shape, call)


def _differs(output: object, batch: int) -> TypeGuard[Tensor]:
    """Whether an output is a map, or tokens, that differ between the first two images."""
    if not isinstance(output, Tensor) or output.ndim < 3 or len(output) % batch:
        return False
    step = len(output) // batch
    return not torch.equal(output[:step], output[step : 2 * step])

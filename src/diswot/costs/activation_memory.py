"""Memory that activations take, followed tensor by tensor through one forward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._pytree import tree_leaves

_weak: Any = StorageWeakRef  # torch gives it no types


class Live:
    """Bytes of the tensors that are alive, and the most there ever were.

    Counted are the image and what operations make of it, until nothing holds it any more; two
    views of one piece of memory once. Not counted are the network's parameters and buffers, what
    an operation needs within itself, and what the allocator rounds up.

    Args:
        model: Whose parameters and buffers are not counted.
        images: The input.
    """

    def __init__(self, model: nn.Module, images: torch.Tensor) -> None:
        own = [*model.parameters(), *model.buffers()]
        self._own = [_weak(t.untyped_storage()) for t in own if _has_storage(t)]
        self._ignored = {ref.cdata for ref in self._own}
        self._alive: dict[int, tuple[Any, int]] = {}
        self.peak = 0
        self.see(images)

    def see(self, made: object) -> None:
        """Take in what an operation has made, while what it was made of is alive still."""
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and _has_storage(tensor):
                storage = tensor.untyped_storage()
                ref = _weak(storage)
                if ref.cdata not in self._ignored and ref.cdata not in self._alive:
                    self._alive[ref.cdata] = ref, storage.nbytes()
        self._alive = {key: kept for key, kept in self._alive.items() if not kept[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._alive.values()))


def _has_storage(tensor: torch.Tensor) -> bool:
    return tensor.layout == torch.strided

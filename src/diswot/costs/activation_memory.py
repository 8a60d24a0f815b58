"""Peak memory of activations, counted tensor by tensor during one forward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from diswot.utils.compat import tree_leaves

_weak: Any = StorageWeakRef  # torch gives it no types


class LiveActivations:
    """Counter of the bytes of live activations of a model on its images, and of their peak.

    The input and the results of operations count until nothing refers to them; views of one
    storage count once. Parameters and buffers of the network, work space inside an operation and
    padding by the allocator do not count.

    Attributes:
        peak: Largest number of bytes so far.
    """

    def __init__(self, model: nn.Module, images: torch.Tensor) -> None:
        own = [*model.parameters(), *model.buffers()]
        self._own = [_weak(t.untyped_storage()) for t in own if _has_storage(t)]
        self._ignored = {ref.cdata for ref in self._own}
        self._alive: dict[int, tuple[Any, int]] = {}
        self.peak = 0
        self.add(images)

    def add(self, results: object) -> None:
        """Count the results of an operation while its arguments are still alive."""
        for tensor in tree_leaves(results):
            if isinstance(tensor, torch.Tensor) and _has_storage(tensor):
                storage = tensor.untyped_storage()
                ref = _weak(storage)
                if ref.cdata not in self._ignored and ref.cdata not in self._alive:
                    self._alive[ref.cdata] = ref, storage.nbytes()
        self._alive = {key: kept for key, kept in self._alive.items() if not kept[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._alive.values()))


def _has_storage(tensor: torch.Tensor) -> bool:
    return tensor.layout == torch.strided

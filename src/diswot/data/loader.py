"""Batches of images for training, from one tensor on the device or read ahead by threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from diswot.data.dataset import Dataset, Split, whole

SHARE = 0.4  # of the free memory, for images in memory
THREADS = 8  # at most; each holds a batch
AHEAD = 2  # batches that are read ahead of all threads


@dataclass(frozen=True)
class InMemoryImages:
    """All images of a split, on the device.

    Attributes:
        images: Bytes, N x 3 x S x S.
        labels: Class indices, N, or those of pixels, N x H x W; or boxes, N x M x 6.
    """

    images: Tensor
    labels: Tensor

    def batches(self, parts: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the images and labels of each part, a tensor of indices."""
        for part in parts:
            chosen = part.to(self.labels.device)
            labels = self.labels[chosen]
            yield self.images[chosen], labels if labels.is_floating_point() else labels.long()


@dataclass(frozen=True)
class StreamedImages:
    """Images of a split that threads read some batches ahead, in order, for a device."""

    split: Split
    device: torch.device

    def batches(self, parts: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the images and labels of each part, as `InMemoryImages.batches` does."""
        threads = min(THREADS, os.cpu_count() or 1)
        waiting: deque[Future[tuple[Tensor, Tensor]]] = deque()
        with ThreadPoolExecutor(threads) as pool:
            try:
                for part in parts:
                    waiting.append(pool.submit(self._read, part.tolist()))
                    if len(waiting) == threads + AHEAD:
                        yield self._ready(waiting.popleft())
                while waiting:
                    yield self._ready(waiting.popleft())
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _read(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        return self.split.read(indices), self.split.targets(indices)

    def _ready(self, waiting: Future[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        images, targets = waiting.result()
        if self.device.type == "cuda":
            images = images.pin_memory()
        return images.to(self.device, non_blocking=True), targets.to(self.device)


BatchSource = InMemoryImages | StreamedImages


def batch_source(
    split: Split,
    data: Dataset,
    device: torch.device,
    on_read: Callable[[int], None],
    *,
    hold: bool | None = None,
) -> BatchSource:
    """Return a source of batches of a split: all images on the device if they fit, else a stream.

    `hold` decides instead, if it is given; `on_read` is called with the number of images read so
    far.
    """
    needed = len(split) * torch.Size(data.image_shape).numel()
    if needed <= SHARE * free(device) if hold is None else hold:
        return InMemoryImages(*whole(split, device, on_read))
    return StreamedImages(split, device)


def free(device: torch.device) -> int:
    """Return the free memory of a device, in bytes."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    return int(psutil.virtual_memory().available)

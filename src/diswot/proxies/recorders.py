"""Recorders: what some proxies read in a candidate's one forward pass, beside the observation.

Letters: B images, C channels, H x W positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from functools import cached_property
from typing import Self

import torch
from torch import Tensor, nn

from diswot.proxies.blocks import map_of, primary_blocks
from diswot.proxies.eigen import eigenvalues, spectral_entropy


class Recorder:
    """A context in which the next run of a model on some images is recorded.

    An observation may run a model more than once: only the first run is recorded, and all hooks are
    removed at its end.
    """

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        self.model, self.images = model, images
        self._running = ExitStack()

    def hooks(self) -> Iterator[AbstractContextManager[object]]:
        """Yield what is entered when the run starts and left when it ends, such as hooks."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._start_hook = self.model.register_forward_pre_hook(self._start)
        return self

    def __exit__(self, *error: object) -> None:
        self._start_hook.remove()
        self._running.close()  # the run may have failed

    def _start(self, *_: object) -> None:
        self._start_hook.remove()
        self._running.enter_context(self.model.register_forward_hook(self._stop))
        for hook in self.hooks():
            self._running.enter_context(hook)

    def _stop(self, *_: object) -> None:
        self._running.close()


class BlockEntropies(Recorder):
    """Recorder of the entropy of the principal components of each primary block's map.

    Positions of all images are the samples, channels the variables. The entropy, in nats, is that
    of the components' shares of the variance. A constant map has entropy 0.
    """

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        super().__init__(model, images)
        self.squares: list[Tensor] = []

    def hooks(self) -> Iterator[AbstractContextManager[object]]:
        """Hook each block."""
        return (block.register_forward_hook(self._record) for block in primary_blocks(self.model))

    def _record(self, module: nn.Module, inputs: object, output: object) -> None:
        features = map_of(output, self.images)
        if features is not None:
            self.squares.append(component_square(features.detach()))

    @cached_property
    def values(self) -> list[float]:
        """The entropy of each map in nats, in running order."""
        return [spectral_entropy(eigenvalues(square)) for square in self.squares]


def component_square(features: Tensor) -> Tensor:
    """Return a matrix with the spectrum of the channels' covariance, up to a factor.

    It is the covariance, C x C, or the Gram matrix of the positions, BHW x BHW, if this is smaller.
    The mean is subtracted from the covariance. If so little of the squares is left that rounding
    would show, it is subtracted from the features instead. Deviations too large or too small for
    float32 are first divided by the largest.
    """
    samples = features.movedim(1, -1).flatten(0, -2)
    mean = samples.mean(0)
    if len(samples) >= len(mean):
        plain = (samples.T @ samples).double()
        square = plain - len(samples) * torch.outer(mean.double(), mean.double())
        if 1e-20 < plain.trace() < 1e30 and square.trace() > _LEAST_LEFT * plain.trace():
            return square
    samples = samples - mean
    square = _smaller_square(samples)
    if 1e-20 < square.diagonal().amax() < 1e30:
        return square
    largest = samples.abs().max()
    return _smaller_square(samples / largest.masked_fill(largest == 0, 1))


_LEAST_LEFT = 0.1  # share of the squares, for the mean to be subtracted afterwards


def _smaller_square(rows: Tensor) -> Tensor:
    return rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows

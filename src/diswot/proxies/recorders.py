"""What some proxies want caught during a candidate's one forward pass, beyond the observation.

Letters: B batch, C channels, H x W positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from diswot.observation.functional import as_it_lies
from diswot.proxies.blocks import map_of, primary_blocks
from diswot.proxies.eigen import eigenvalues, spectral_entropy


def _operations(*names: str) -> frozenset[object]:
    """PyTorch's operations of these names, and those in place."""
    both = (name + end for name in names for end in ("", "_"))
    return frozenset(getattr(torch.ops.aten, n) for n in both if hasattr(torch.ops.aten, n))


_RELU = _operations("relu")
_OTHERS = _operations("leaky_relu", "elu", "hardtanh", "gelu", "silu", "hardswish", "mish")


class Watch:
    """Catches one thing while a model runs; as a context it leaves no hook behind.

    An observation may run a model more than once: only the first run counts, and nothing outside
    of it.
    """

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        self.model, self.images = model, images
        self.runs, self.active = 0, False

    def hooks(self) -> Iterator[AbstractContextManager[object]]:
        """What catches it, made one by one and undone together; heeded while `active`."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.model.register_forward_pre_hook(self._start))
            stack.enter_context(self.model.register_forward_hook(self._stop))
            for hook in self.hooks():
                stack.enter_context(hook)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _start(self, *_: object) -> None:
        self.runs += 1
        self.active = self.runs == 1

    def _stop(self, *_: object) -> None:
        self.active = False


class Codes(Watch):
    """On how many rectifiers each pair of images agrees.

    A rectifier is any ReLU, LeakyReLU, ELU, ReLU6, GELU, SiLU, Hardswish or Mish that runs, be it
    a module, a function or in place: they are seen as PyTorch's operations, below the modules.
    Those inside a fused kernel, as of `nn.TransformerEncoderLayer`, are not. A rectifier's binary
    code is whether its input is above zero.

    Attributes:
        both: How many are on in both of two images, B x B; on the diagonal, in one.
        units: Number of rectifiers.
    """

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        super().__init__(model, images)
        size = len(images), len(images)
        self.both = torch.zeros(size, dtype=torch.int32, device=images.device)
        self.units = 0
        self._running = ExitStack()
        self._room = torch.empty(0, dtype=torch.bool, device=images.device)
        self._known: Any = WeakIdKeyDictionary()

    @property
    def agreement(self) -> Tensor:
        """How many are on in both or in neither: N - |a| - |b| + 2 |a and b|, B x B, float64."""
        both = self.both.double()
        on = both.diagonal()
        return 2 * both - on - on[:, None] + self.units

    def hooks(self) -> Iterator[AbstractContextManager[object]]:
        """None, but for one below all modules while the first run lasts: it slows all else down."""
        return iter(())

    def __exit__(self, *error: object) -> None:
        self._stop()  # the run may have failed
        super().__exit__(*error)

    def _start(self, *_: object) -> None:
        super()._start()
        if self.active:
            self._running.enter_context(_Rectifiers(self._see))

    def _stop(self, *_: object) -> None:
        self._running.close()
        super()._stop()

    def _see(self, inputs: Tensor, rectified: Tensor | None) -> None:
        """Take a code; once of a tensor that several rectifiers get, as in a cell."""
        if not self.active or inputs.ndim < 2 or inputs.shape[0] % self.images.shape[0]:
            return
        known = self._known.get(inputs)
        if known is None or known[0] != inputs._version:
            code = self._code(inputs.relu() if rectified is None else rectified)
            known = self._known[inputs] = inputs._version, _both(code), code.shape[1]
        self.both += known[1]
        self.units += known[2]

    def _code(self, rectified: Tensor) -> Tensor:
        """One row an image, in memory that is used again; quicker than a comparison."""
        rows = as_it_lies(rectified.detach()).reshape(len(self.images), -1)
        if self._room.numel() < rows.numel():
            self._room = self._room.new_empty(rows.numel())
        return self._room[: rows.numel()].view(rows.shape).copy_(rows)


_ONEDNN = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


def _both(code: Tensor) -> Tensor:
    """How many entries are true in both of two rows, for all pairs; exact below 2^24 entries."""
    if code.device.type == "cpu" and _ONEDNN:
        bytes_ = code.view(torch.int8)
        return torch._int_mm(bytes_, bytes_.T)  # twice as fast
    return (code.float() @ code.float().T).int()


class _Rectifiers(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types
    """Shows every rectifier's input to a function, and if it is a ReLU the output."""

    def __init__(self, see: Callable[[Tensor, Tensor | None], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.see = see

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else the first operation loads PyTorch's compiler, which takes a second

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func.overloadpacket in _OTHERS:
            self.see(args[0], None)
        output = func(*args, **(kwargs or {}))
        if func.overloadpacket in _RELU:
            self.see(args[0], output)
        return output


class Entropies(Watch):
    """The entropy of the principal components of each primary block's map, in running order.

    Attributes:
        widths: Channels of each map.
    """

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        super().__init__(model, images)
        self.squares: list[Tensor] = []
        self.widths: list[int] = []

    def hooks(self) -> Iterator[AbstractContextManager[object]]:
        """One hook a block."""
        return (block.register_forward_hook(self._see) for block in primary_blocks(self.model))

    def _see(self, module: nn.Module, inputs: object, output: object) -> None:
        features = map_of(output, self.images) if self.active else None
        if features is not None:
            self.squares.append(_component_square(features.detach()))
            self.widths.append(features.shape[1])

    @cached_property
    def values(self) -> list[float]:
        """One a block, as `component_entropy` gives them."""
        return [spectral_entropy(eigenvalues(square)) for square in self.squares]


def component_entropy(features: Tensor) -> float:
    """Entropy of the shares of variance of a map's principal components, in nats.

    The positions of all images are the samples, the channels the variables. A constant map, which
    has no components, has entropy 0.

    Args:
        features: B x C x H x W.
    """
    return spectral_entropy(eigenvalues(_component_square(features)))


def _component_square(features: Tensor) -> Tensor:
    """The covariance up to a factor, or if smaller the Gram matrix, which has the same spectrum.

    The mean is taken off the covariance, not off the features, unless so little is left of the
    squares that rounding would show. Where these are too large or too small for single precision,
    all deviations are first divided by the largest.
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


_LEAST_LEFT = 0.1  # share of the squares, for the mean to be taken off afterwards


def _smaller_square(rows: Tensor) -> Tensor:
    return rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows

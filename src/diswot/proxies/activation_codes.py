"""Binary activation codes of the rectifiers that run in a forward pass.

Letters: B images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from diswot.observation.functional import in_memory_order
from diswot.proxies.recorders import Recorder
from diswot.utils.compat import OperatorMode, int8_matmul, uncompiled_attention, version_of


def _operations(*names: str) -> frozenset[object]:
    """Return PyTorch's operations of these names, and those in place."""
    both = (name + end for name in names for end in ("", "_"))
    return frozenset(getattr(torch.ops.aten, n) for n in both if hasattr(torch.ops.aten, n))


_RELU = _operations("relu")
_OTHERS = _operations("leaky_relu", "elu", "hardtanh", "gelu", "silu", "hardswish", "mish")


class ActivationCodes(Recorder):
    """Recorder of the number of rectifier units on which each pair of images agrees.

    Rectifiers are ReLU, LeakyReLU, ELU, ReLU6, GELU, SiLU, Hardswish and Mish, as modules, as
    functions and in place: PyTorch's operations are recorded, below the modules. Rectifiers inside
    a fused kernel, such as that of `nn.TransformerEncoderLayer`, are not recorded. The binary code
    of a unit is whether its input is above zero.

    Attributes:
        both: Number of units that are active for both of two images, B x B; the diagonal has those
            of one image.
        units: Number of units.
    """

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        super().__init__(model, images)
        size = len(images), len(images)
        self.both = torch.zeros(size, dtype=torch.int32, device=images.device)
        self.units = 0
        self._buffer = torch.empty(0, dtype=torch.bool, device=images.device)
        self._counted: Any = WeakIdKeyDictionary()

    @property
    def agreement(self) -> Tensor:
        """Number of units that are active for both or for neither of two images, B x B, float64.

        N - |a| - |b| + 2 |a and b|, with N units.
        """
        both = self.both.double()
        active = both.diagonal()
        return 2 * both - active - active[:, None] + self.units

    def hooks(self) -> Iterator[AbstractContextManager[object]]:
        """Observe all operations."""
        yield uncompiled_attention()  # the compiler would trace the mode
        yield _Rectifiers(self._record)

    def _record(self, inputs: Tensor, rectified: Tensor | None) -> None:
        """Add a code; it is computed once if several rectifiers take one tensor, as in a cell."""
        if not self._of_images(inputs):
            return
        counted = self._counted.get(inputs)
        if counted is None or counted[0] != version_of(inputs):
            code = self._code(inputs.relu() if rectified is None else rectified)
            counted = self._counted[inputs] = version_of(inputs), _both(code), code.shape[1]
        self.both += counted[1]
        self.units += counted[2]

    def _of_images(self, inputs: Tensor) -> bool:
        """Say whether the first dimension is that of images, or of their parts in turn.

        Vectors of another number than the images are those of a detector's proposals.
        """
        count, images = len(inputs) if inputs.ndim else 0, len(self.images)
        return inputs.ndim > 1 and (count == images or (inputs.ndim > 2 and count % images == 0))

    def _code(self, rectified: Tensor) -> Tensor:
        """Return one row an image in a reused buffer, which is faster than a comparison."""
        rows = in_memory_order(rectified.detach()).reshape(len(self.images), -1)
        if self._buffer.numel() < rows.numel():
            self._buffer = self._buffer.new_empty(rows.numel())
        return self._buffer[: rows.numel()].view(rows.shape).copy_(rows)


_ONEDNN = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


def _both(code: Tensor) -> Tensor:
    """Count the entries that are true in both of two rows, for all pairs; exact below 2^24."""
    if code.device.type == "cpu" and _ONEDNN:
        bytes_ = code.view(torch.int8)
        return int8_matmul(bytes_, bytes_.T)  # twice as fast
    return (code.float() @ code.float().T).int()


class _Rectifiers(OperatorMode):  # type: ignore[no-untyped-call]  # torch has no types
    """Dispatch mode that passes each rectifier's input, and a ReLU's output, to a function."""

    def __init__(self, record: Callable[[Tensor, Tensor | None], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.record = record

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        operation = getattr(func, "overloadpacket", None)
        if operation in _OTHERS:
            self.record(args[0], None)
        output = func(*args, **(kwargs or {}))
        if operation in _RELU:
            self.record(args[0], output)
        return output

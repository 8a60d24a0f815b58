"""Multiply-adds, activation memory, parameters and layers of a network."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import flop_registry, sdpa_flop

from diswot.costs.activation_memory import LiveActivations
from diswot.errors import UserError
from diswot.utils.compat import (
    CPU_FLASH_ATTENTION,
    CUDNN_RNN,
    HigherOrderOperator,
    OperatorMode,
    plain_kernel,
    uncompiled_attention,
)

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Counts:
    """Costs of the forward pass of one image.

    Attributes:
        macs: Multiply-adds in convolutions and matrix products.
        memory: Peak of live activations in bytes.
        uncounted: Names of operations with multiply-adds for which there is no formula, sorted.
    """

    macs: int
    memory: int
    uncounted: tuple[str, ...]

    def all_macs(self) -> int:
        """Return the multiply-adds, which a limit or a score needs in full.

        Raises:
            UserError: An operation has no formula.
        """
        if self.uncounted:
            raise UserError(
                f"its MACs cannot be counted: no formula for {', '.join(self.uncounted)}"
            )
        return self.macs


def count(model: nn.Module, image_shape: Shape) -> Counts:
    """Count multiply-adds and memory in a forward pass of one image in evaluation mode.

    The model is left as it was found. The pass is a real one: for networks of CIFAR size a pass on
    the meta device takes longer (35 ms against 7 ms for ResNet-20).

    A detector is counted with the heads that run on each of its proposals, as many as it makes on
    the image, which is black. What selects its boxes has no multiply-adds, and its memory counts.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    images = torch.zeros(1, *image_shape, device=device, dtype=_precision(model))
    with _evaluating(model), _Tally(model, images) as tally:
        model(images)
    return Counts(tally.flops // 2, tally.live.peak, tuple(sorted(tally.uncounted)))


def _precision(model: nn.Module) -> torch.dtype:
    """Return the type of the first floating-point weight; float32 without one."""
    kinds = (p.dtype for p in model.parameters() if p.is_floating_point())
    return next(kinds, torch.float32)


def count_macs(model: nn.Module, image_shape: Shape) -> int:
    """Count the multiply-adds of one image; arguments as in `count`."""
    return count(model, image_shape).macs


def count_params(model: nn.Module) -> int:
    """Count the parameters of a network, trainable or frozen, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_trainable(model: nn.Module) -> int:
    """Count the parameters of a network that are not frozen, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def count_sizes(model: nn.Module, image_shape: Shape) -> dict[str, Any]:
    """Return the parameters of a network and its multiply-adds for one image.

    With them stand the trainable parameters if some are frozen, and `uncounted`, the names of
    operations that the multiply-adds leave out, if there are any.
    """
    everything, trainable = count_params(model), count_trainable(model)
    frozen = {} if trainable == everything else {"trainable_params": trainable}
    counts = count(model, image_shape)
    left_out = {"uncounted": [*counts.uncounted]} if counts.uncounted else {}
    return {"model_params": everything, **frozen, "macs": counts.macs, **left_out}


def count_depth(model: nn.Module) -> int:
    """Count the layers: modules whose own weight is a parameter of two dimensions or more."""
    weights = (getattr(module, "weight", None) for module in model.modules())
    return sum(isinstance(w, nn.Parameter) and w.ndim > 1 for w in weights)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, without fused attention, whose products are not counted.

    FlexAttention runs uncompiled: the compiler would trace the counting, too.
    """
    modes = [(module, module.training) for module in model.modules()]
    fused = torch.backends.mha.get_fastpath_enabled()
    random = torch.random.fork_rng(devices=[])
    with torch.no_grad(), random, uncompiled_attention(), sdpa_kernel(SDPBackend.MATH):
        try:
            torch.backends.mha.set_fastpath_enabled(False)
            model.eval()
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fused)
            for module, mode in modes:
                module.training = mode


class _Tally(OperatorMode):  # type: ignore[no-untyped-call]
    """Dispatch mode that counts the multiply-adds and the memory of all operations."""

    def __init__(self, model: nn.Module, images: torch.Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0
        self.live = LiveActivations(model, images)
        self.uncounted: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if isinstance(func, HigherOrderOperator):
            return self._higher_order(func, args, kwargs)
        formula = _FORMULAS.get(func.overloadpacket)
        if formula is None and func is not torch.ops.prim.device.default:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=out)
        elif _is_costly(func):
            self.uncounted.add(_name(func))
        self.live.add(out)
        return out

    def _higher_order(self, func: Any, args: Sequence[Any], kwargs: Any) -> Any:
        """Run an operator that takes functions; the operations inside are counted one by one."""
        kernel = plain_kernel(func)
        if kernel is not None:
            with self:
                return kernel(*args, **kwargs)
        self.uncounted.add(func.name())
        out = func(*args, **kwargs)
        self.live.add(out)
        return out


def _name(func: Any) -> str:
    """Return `fft_fft2` for an operation of aten, `torchvision::deform_conv2d` for another."""
    name: str = func.name()
    return name.partition(".")[0].removeprefix("aten::")


def _is_costly(func: Any) -> bool:
    """Whether an operation without a formula may have multiply-adds that the convention counts.

    Operations of torch are recognised by name; any operation of another library may. Marks of the
    profiler compute nothing.
    """
    known = ("aten", "prim", "prims", "profiler")
    name = _name(func)
    return (func.namespace not in known and name not in _FREE) or bool(_COSTLY.search(name))


_FREE = ("torchvision::nms", "torchvision::roi_align")  # comparisons, and interpolation
_COSTLY = re.compile(
    r"mm($|_)|matmul|conv(?!ert)|attention|linalg(?!_vector_norm|_check_errors|_cross)|fft|cdist"
    r"|_euclidean_dist|^_pdist"
    r"|^(mkldnn_)?linear$|^_trilinear$|rnn|lstm|gru|cholesky|triangular|embedding_bag|^addr$"
)


def _dot_flop(first: torch.Tensor, *args: Any, out_val: Any, **kwargs: Any) -> int:
    return 2 * first.numel()


def _addmv_flop(bias: Any, matrix: torch.Tensor, *args: Any, out_val: Any, **kwargs: Any) -> int:
    return 2 * matrix.numel()


def _sdpa_flop(*args: Any, out_val: Any, **kwargs: Any) -> int:
    return int(sdpa_flop(*args[:3], out_val=out_val[0]))


def _recurrent_flop(
    inputs: torch.Tensor, *weights: torch.Tensor, out_val: Any, **kwargs: Any
) -> int:
    """Count a recurrent layer: each step of each sequence meets each weight once."""
    rows = inputs.numel() // inputs.shape[-1]
    return 2 * rows * sum(weight.numel() for weight in weights if weight.ndim > 1)


def _onednn_rnn_flop(inputs: Any, one: Any, other: Any, *args: Any, out_val: Any, **_: Any) -> int:
    return _recurrent_flop(inputs, one, other, out_val=out_val)


def _cudnn_rnn_flop(inputs: Any, weights: Any, *args: Any, out_val: Any, **_: Any) -> int:
    return _recurrent_flop(inputs, *weights, out_val=out_val)


aten = torch.ops.aten
# Products with a vector have one multiply-add for each element of the first factor.
_FORMULAS: Mapping[Any, Any] = {
    **flop_registry,
    aten.mv: _dot_flop,
    aten.dot: _dot_flop,
    aten.vdot: _dot_flop,
    aten.addmv: _addmv_flop,
    CPU_FLASH_ATTENTION: _sdpa_flop,
    aten.mkldnn_rnn_layer: _onednn_rnn_flop,  # one layer, one direction
    CUDNN_RNN: _cudnn_rnn_flop,  # all layers, both directions
    aten.miopen_rnn: _cudnn_rnn_flop,
}

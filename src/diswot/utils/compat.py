"""Private names of torch and timm on which diswot depends, each with the reason.

Those of Optuna are in `storage/compat.py`: this package knows no studies. The functions import timm
late, since most modules that need this one do without timm.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch import _assert as traced_assert  # what torch.fx records for a model's own checks

# The only product of int8 matrices; on CPUs 2x as fast. Exact for zeros and ones; sums of larger
# bytes saturate on processors without VNNI.
from torch import _int_mm as int8_matmul
from torch._C import DispatchKey  # the names of an operator's implementations
from torch._ops import HigherOrderOperator  # operators that take functions, as FlexAttention is one
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm  # batch norms of all dimensions
from torch.nn.modules.batchnorm import _NormBase as BatchNormBase  # the base of all batch norms
from torch.nn.modules.conv import _ConvNd as ConvBase  # the base of all convolutions
from torch.utils._device import DeviceContext  # what torch.device is as a context; for subclasses
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves  # tensors in nested arguments, as operators take them

# The prefix that torch.fx writes for functions of torch.nn.functional that are not Python.
TRACED_FUNCTIONS = "torch._C._nn."

# The attributes of a module that hold its children, and its own tensors, by name.
CHILDREN = "_modules"
OWN_TENSORS = ("_parameters", "_buffers")

# Operators without a public name that run on some devices only.
CPU_FLASH_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
CUDNN_RNN = torch.ops.aten._cudnn_rnn


class OperatorMode(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types
    """Base of a context that sees each operator that runs; nothing public sees them.

    Operators that take functions, such as FlexAttention, are seen too.
    """

    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # otherwise the first operation loads PyTorch's compiler, which takes a second


def version_of(tensor: Tensor) -> int:
    """Return the number of changes of a tensor in place; nothing public counts them."""
    return tensor._version


def own_parameters(module: nn.Module) -> dict[str, nn.Parameter | None]:
    """Return the table of a module's own parameters; `named_parameters` takes over 10x as long."""
    return module._parameters


def own_buffers(module: nn.Module) -> dict[str, Tensor | None]:
    """Return the table of a module's own buffers; to set an attribute takes over 10x as long."""
    return module._buffers


def has_hooks(module: nn.Module) -> bool:
    """Say whether a module has forward hooks, which torch adds and removes, but does not list."""
    return bool(module._forward_pre_hooks or module._forward_hooks)


def uncompiled(model: nn.Module) -> nn.Module | None:
    """Return the network inside one that `torch.compile` returned; None for any other network.

    The class of compiled networks is private too, and loads the compiler.
    """
    return dict(model.named_children()).get("_orig_mod")


def decoded_blocks(stages: Sequence[Sequence[str]]) -> list[list[dict[str, Any]]]:
    """Return blocks in the notation of EfficientNets, as timm's `EfficientNet` takes them."""
    from timm.models._efficientnet_builder import decode_arch_def

    return decode_arch_def(stages)  # type: ignore[no-untyped-call,no-any-return]


def efficientnet_blocks() -> Any:
    """Return timm's module of inverted residuals and their gates, which no public one exports."""
    from timm.models import _efficientnet_blocks

    return _efficientnet_blocks


def plain_kernel(operator: HigherOrderOperator) -> Callable[..., Any] | None:
    """Return the implementation of an operator in plain operations; None if it has none."""
    return operator.py_kernels.get(DispatchKey.CompositeExplicitAutograd)


@contextmanager
def uncompiled_attention() -> Iterator[None]:
    """Run FlexAttention without the compiler, if it is imported; nothing public does."""
    module: Any = sys.modules.get("torch.nn.attention.flex_attention")
    if module is None:
        yield
        return
    before = module._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG
    try:
        module._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG = True
        yield
    finally:
        module._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG = before


__all__ = [
    "CHILDREN",
    "CPU_FLASH_ATTENTION",
    "CUDNN_RNN",
    "OWN_TENSORS",
    "TRACED_FUNCTIONS",
    "BatchNorm",
    "BatchNormBase",
    "ConvBase",
    "DeviceContext",
    "HigherOrderOperator",
    "OperatorMode",
    "decoded_blocks",
    "efficientnet_blocks",
    "has_hooks",
    "int8_matmul",
    "own_buffers",
    "own_parameters",
    "plain_kernel",
    "traced_assert",
    "tree_leaves",
    "uncompiled",
    "uncompiled_attention",
    "version_of",
]

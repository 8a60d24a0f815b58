"""Private names of torch on which diswot depends, each with the reason.

Those of Optuna are in `storage/compat.py`: this package knows no studies.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import _assert as traced_assert  # what torch.fx records for a model's own checks
from torch import _int_mm as int8_matmul  # the only product of int8 matrices; on CPUs 2x as fast
from torch._C import DispatchKey  # the names of an operator's implementations
from torch._ops import HigherOrderOperator  # operators that take functions, as FlexAttention is one
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm  # batch norms of all dimensions
from torch.nn.modules.batchnorm import _NormBase as BatchNormBase  # the base of all batch norms
from torch.nn.modules.conv import _ConvNd as ConvBase  # the base of all convolutions
from torch.utils._device import DeviceContext  # what torch.device is as a context; for subclasses
from torch.utils._python_dispatch import (
    TorchDispatchMode,  # sees each operator; nothing public does
)
from torch.utils._pytree import tree_leaves  # tensors in nested arguments, as operators take them

# The prefix that torch.fx writes for functions of torch.nn.functional that are not Python.
TRACED_FUNCTIONS = "torch._C._nn."


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
    "TRACED_FUNCTIONS",
    "BatchNorm",
    "BatchNormBase",
    "ConvBase",
    "DeviceContext",
    "HigherOrderOperator",
    "TorchDispatchMode",
    "int8_matmul",
    "plain_kernel",
    "traced_assert",
    "tree_leaves",
    "uncompiled_attention",
]

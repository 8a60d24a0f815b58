"""Channel weights of Grad-CAM: how much each channel of the last map speaks for the label.

Letters: B batch, K classes, C channels, H x W positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def sees_the_mean(entering: Tensor, last: Tensor) -> bool:
    """Whether what enters the classifier is the mean of the last map over positions, no more.

    To within rounding: 1e-4 of the largest entry, or two steps of a half-precision type.
    """
    mean = last.detach().float().mean((2, 3))
    if entering.shape != mean.shape:
        return False
    entered = entering.detach().float()
    step = max(1e-4, *(2 * torch.finfo(t.dtype).eps for t in (entering, last)))
    return bool((entered - mean).abs().amax() <= step * entered.abs().amax())


def linear_cam_weights(weight: Tensor, labels: Tensor, last: Tensor) -> Tensor:
    """Weights where one linear layer on the mean of the last map gives the logits.

    The slope of logit y in A at any position is W_y / HW, and so is its mean. No backward pass.

    Args:
        weight: Of the layer, K x C.
        labels: y, B.
        last: A, B x C x H x W.

    Returns:
        B x C.
    """
    return weight[labels] / last.shape[2:].numel()


def label_slope(logits: Tensor, labels: Tensor, source: Tensor, *, keep_graph: bool) -> Tensor:
    """Slopes of the labels' logits, summed over the batch, in a tensor that they come from.

    Where a layer after it mixes samples, such as a batch norm in the head, their slopes are mixed
    too.

    Args:
        logits: B x K.
        labels: B.
        source: Of any shape.
        keep_graph: Whether the slope gets a graph of its own, and the logits keep theirs.

    Returns:
        Of the shape of the source; zeros where the logits do not depend on it.
    """
    if not logits.requires_grad:
        return torch.zeros_like(source)
    with torch.enable_grad():
        own = logits.float().gather(1, labels[:, None]).sum()
        (slope,) = torch.autograd.grad(
            own, source, create_graph=keep_graph, retain_graph=keep_graph, materialize_grads=True
        )
    return slope


@contextmanager
def graph_from(module: nn.Module, shape: torch.Size, *, enters: bool) -> Iterator[list[Tensor]]:
    """Let passes without gradients record a graph from the output of a module on.

    The memory and time of a graph of the layers before are spared. The model goes on with a copy,
    so that it may overwrite what it was given.

    Args:
        module: Which.
        shape: Of the tensor of interest; other calls of the module are let be.
        enters: Whether the graph starts from the module's input instead.

    Yields:
        The tensors from which graphs start, the latest last.
    """
    starts: list[Tensor] = []

    def start(values: Any) -> Any:
        if isinstance(values, tuple) and values:
            return (start(values[0]), *values[1:])
        if not isinstance(values, Tensor) or values.shape != shape:
            return values
        starts.append(values.detach().requires_grad_())
        torch.set_grad_enabled(True)
        return starts[-1].clone()

    handle = (
        module.register_forward_pre_hook(lambda module, inputs: start(inputs))
        if enters
        else module.register_forward_hook(lambda module, inputs, output: start(output))
    )
    try:
        with torch.no_grad():
            yield starts
    finally:
        handle.remove()

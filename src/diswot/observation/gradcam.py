"""Channel weights of Grad-CAM: the influence of each channel of the last map on the target's logit.

Letters: B images, K classes, C channels, D features that enter the classifier, H x W positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def reads_mean(head_input: Tensor, last: Tensor) -> bool:
    """Whether the input of the classifier is the mean of the last map over positions.

    The two may differ by rounding: 1e-4 of the largest entry, or two units in the last place of a
    half-precision type.
    """
    mean = last.detach().float().mean((2, 3))
    if head_input.shape != mean.shape:
        return False
    entered = head_input.detach().float()
    step = max(1e-4, *(2 * torch.finfo(t.dtype).eps for t in (head_input, last)))
    return bool((entered - mean).abs().amax() <= step * entered.abs().amax())


def linear_cam_weights(weight: Tensor, targets: Tensor, last: Tensor) -> Tensor:
    """Return the channel weights of a linear classifier on the mean of the last map.

    The gradient of logit y at any position of the map A is W_y / HW, and so is its mean over
    positions: no backward pass is needed.

    Args:
        weight: Weight of the classifier W, K x C.
        targets: Class indices y, B.
        last: Last map A, B x C x H x W.

    Returns:
        B x C.
    """
    return weight[targets] / last.shape[2:].numel()


def target_gradient(logits: Tensor, targets: Tensor, source: Tensor, *, keep_graph: bool) -> Tensor:
    """Return the gradient of the targets' logits, summed over the batch, in one tensor.

    If a later layer mixes images, such as a batch normalisation in the head, the gradients of the
    images are mixed too.

    Args:
        logits: B x K.
        targets: Class indices, B.
        source: Tensor of any shape from which the logits were computed.
        keep_graph: Whether the gradient is differentiable and the graph of the logits is kept.

    Returns:
        Of the shape of the source; zeros if the logits do not depend on it.
    """
    if not logits.requires_grad:
        return torch.zeros_like(source)
    with torch.enable_grad():
        total = logits.float().gather(1, targets[:, None]).sum()
        (gradient,) = torch.autograd.grad(
            total, source, create_graph=keep_graph, retain_graph=keep_graph, materialize_grads=True
        )
    return gradient


@contextmanager
def graph_from(module: nn.Module, shape: torch.Size, *, enters: bool) -> Iterator[list[Tensor]]:
    """Let forward passes record a graph that starts at one module.

    So the graph of earlier layers costs neither memory nor time. Later layers get a copy of the
    starting tensor, which they may overwrite.

    Args:
        module: Module at which the graph starts.
        shape: Shape of the starting tensor; calls of the module with other shapes are ignored.
        enters: Whether the graph starts at the module's input instead of its output.

    Yields:
        The tensors at which graphs started, the latest last.
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
    with handle, torch.no_grad():
        yield starts

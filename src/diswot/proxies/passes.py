"""Forward and backward passes that leave the model as it was. Letters: B batch, K classes.

As in `observe`, normalisation layers use the batch's statistics and dropout is off. Gradients are
taken with `torch.autograd.grad`, so that no parameter's `.grad` is touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _NormBase

from diswot.data.dataset import Batch
from diswot.observation.observe import measuring
from diswot.proxies.blocks import map_of, primary_blocks, weights

_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


@contextmanager
def differentiating(model: nn.Module) -> Iterator[None]:
    """As `measuring`, with gradients, and with attention that can be differentiated twice."""
    with measuring(model), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        yield


@contextmanager
def without_norms(model: nn.Module) -> Iterator[None]:
    """Let normalisation layers return what they are given."""
    norms = [module for module in model.modules() if isinstance(module, _NORMS)]
    own = [vars(norm).get("forward") for norm in norms]
    try:
        for norm in norms:
            vars(norm)["forward"] = lambda features: features
        yield
    finally:
        for norm, forward in zip(norms, own, strict=True):
            del vars(norm)["forward"]
            if forward is not None:
                vars(norm)["forward"] = forward


def gradients(
    output: Tensor, inputs: Sequence[Tensor], *, keep: bool = False, again: bool = False
) -> list[Tensor]:
    """Gradient of a scalar in each input, zeros where it does not depend on one.

    Args:
        output: A scalar.
        inputs: What it was computed from.
        keep: Whether the graph is kept.
        again: Whether the gradient can itself be differentiated.
    """
    found = torch.autograd.grad(
        output,
        inputs,
        retain_graph=keep or again,
        create_graph=again,
        allow_unused=True,
        materialize_grads=True,
    )
    return list(found)


def weight_gradients(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Gradient of the mean cross-entropy in each of `weights`, by name."""
    by_name = weights(model)
    with differentiating(model):
        loss = cross_entropy(model(batch.images), batch.labels)
        return dict(zip(by_name, gradients(loss, list(by_name.values())), strict=True))


def input_jacobian(model: nn.Module, images: Tensor) -> Tensor:
    """Gradient of the sum of all logits in each image, B x 3HW.

    Batch statistics tie the images together, so that a row is not of its image's logits alone.
    """
    with differentiating(model):
        leaf = images.detach().requires_grad_()
        (gradient,) = gradients(model(leaf).sum(), [leaf])
    return gradient.flatten(1)


def block_outputs(model: nn.Module, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The logits, and what the primary blocks return in running order, if maps of the images."""
    outputs: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
        if map_of(output, images) is not None:
            outputs.append(output[0] if isinstance(output, tuple) else output)

    handles = [block.register_forward_hook(keep) for block in primary_blocks(model)]
    try:
        logits: Tensor = model(images)
    finally:
        for handle in handles:
            handle.remove()
    return logits, outputs

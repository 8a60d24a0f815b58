"""Forward and backward passes that leave the model as they found it.

As in `observe`, normalisation layers use the batch's statistics and dropout is off. Gradients are
computed with `torch.autograd.grad`, so that no parameter's `.grad` is changed.

Letters: B images, K classes, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from diswot.data.dataset import Batch
from diswot.errors import UserError
from diswot.observation.losses import mean_loss
from diswot.observation.modes import hooked, measuring, replaced, sliced_shortcuts
from diswot.observation.rows import logits_of
from diswot.proxies.blocks import map_of, primary_blocks, weights
from diswot.utils.compat import BatchNormBase

_NORMS = (BatchNormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


@contextmanager
def differentiating(model: nn.Module) -> Iterator[None]:
    """Put a model into measuring mode with gradients, and with twice differentiable attention."""
    attention = sdpa_kernel(SDPBackend.MATH)
    with measuring(model), sliced_shortcuts(model), torch.enable_grad(), attention:
        yield


@contextmanager
def without_norms(model: nn.Module) -> Iterator[None]:
    """Replace normalisation by the identity; what a layer of timm does after it stays."""
    norms = [module for module in model.modules() if isinstance(module, _NORMS)]
    with replaced({norm: partial(_after, [*norm.children()]) for norm in norms}):
        yield


def _after(children: list[nn.Module], features: Tensor) -> Tensor:
    """Run the children of a normalisation layer: dropout and activation, perhaps in place."""
    for child in children:
        features = child(features.clone())
    return features


def gradients(
    output: Tensor, inputs: Sequence[Tensor], *, keep_graph: bool = False, twice: bool = False
) -> list[Tensor]:
    """Return the gradient of a scalar in each input; zeros if it does not depend on the input.

    Args:
        output: A scalar.
        inputs: Tensors of any shape.
        keep_graph: Whether to keep the graph for another call.
        twice: Whether the gradients themselves are differentiable.

    Raises:
        UserError: The output has no gradient at all.
    """
    if not output.requires_grad:
        raise UserError("the outputs have no gradient, as under torch.no_grad or after detach")
    found = torch.autograd.grad(
        output,
        inputs,
        retain_graph=keep_graph or twice,
        create_graph=twice,
        allow_unused=True,
        materialize_grads=True,
    )
    return list(found)


def weight_gradients(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Return the gradient of `losses.mean_loss` in each of `blocks.weights`, by name."""
    by_name = weights(model)
    with differentiating(model):
        loss = mean_loss(model, *batch)
        return dict(zip(by_name, gradients(loss, list(by_name.values())), strict=True))


def input_jacobian(model: nn.Module, images: Tensor) -> Tensor:
    """Return the gradient of the sum of all logits in each image, B x 3HW.

    Batch statistics tie the images together, so a row is not of the image's own logits alone.
    """
    with differentiating(model):
        leaf = images.detach().requires_grad_()
        (gradient,) = gradients(logits_of(model(leaf)).sum(), [leaf])
    return gradient.flatten(1)


def block_outputs(model: nn.Module, images: Tensor) -> list[Tensor]:
    """Run a model and return the outputs of its primary blocks that are maps, in running order."""
    outputs: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
        if map_of(output, images) is not None:
            outputs.append(output[0] if isinstance(output, tuple) else output)

    with hooked(primary_blocks(model), keep):
        model(images)
    return outputs

"""The gradient of the mean cross-entropy in the classifier's weight.

Letters: N rows, K classes, D features that enter the classifier.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from diswot.errors import UserError
from diswot.observation.modes import without_autocast


def linear_class_gradient(head_input: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
    """Return the class gradient of a linear classifier without a backward pass.

    Args:
        head_input: Inputs of the classifier H, N x D.
        logits: Its outputs Z, which must be the logits of the model, N x K.
        targets: Class indices y, N.

    Returns:
        (softmax(Z) - onehot(y))^T H / N in float32, K x D.
    """
    error = logits.float().softmax(1) - one_hot(targets, logits.shape[1])
    with without_autocast(logits.device):  # which would round to bf16
        return error.T @ head_input.float() / len(targets)


def autograd_class_gradient(
    rerun: Callable[[], Tensor], logits: Tensor, targets: Tensor, *weights: Tensor
) -> Tensor:
    """Return the class gradient of any classifier by a backward pass.

    Args:
        rerun: Runs the model again with a graph; called only if `logits` have none.
        logits: Outputs of the model, N x K.
        targets: Class indices, N.
        weights: Weights of the classifier, K x ..., or of several whose columns stand side by side;
            they need not be trainable. A weight of several anchors, AK x ..., is summed over them.

    Returns:
        K x D, D the number of entries of the weights a class; differentiable if `logits` are.

    Raises:
        UserError: The model was built in `torch.inference_mode()`.
    """
    if any(weight.is_inference() for weight in weights):
        raise UserError("a model that was built in torch.inference_mode() has no gradients")
    keep_graph = logits.requires_grad
    trainable = [weight.requires_grad for weight in weights]
    try:
        with torch.enable_grad():
            for weight in weights:
                weight.requires_grad_(True)
            outputs = logits if keep_graph else rerun()
            loss = cross_entropy(outputs.float(), targets)
            found = torch.autograd.grad(loss, weights, create_graph=keep_graph)
    finally:
        for weight, before in zip(weights, trainable, strict=True):
            weight.requires_grad_(before)
    classes = logits.shape[1]
    return torch.cat([g.reshape(-1, classes, g[0].numel()).sum(0) for g in found], 1)

"""Scores from the gradient of the loss in the weights, at initialisation.

The loss is the mean cross-entropy on the batch, or the sum of a detector's own losses. Weights are
the trainable matrices and kernels (`blocks.weights`). Sums over all weights are in float64.

Letters: B images, C channels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from diswot.data.dataset import Batch
from diswot.errors import UserError
from diswot.observation.losses import mean_loss, summed_loss
from diswot.observation.modes import hooked
from diswot.proxies import passes
from diswot.proxies.blocks import layers, weights
from diswot.proxies.candidate import Candidate

_BATCHES = 2  # as in the experiments of ZiCo
_NEVER_TWICE = ("is not implemented", "not supported")  # in errors of torch and torchvision


def grad_norm(candidate: Candidate) -> float:
    """Return the sum over weight tensors of the Euclidean norm of the gradient.

    Abdelfattah et al., "Zero-Cost Proxies for Lightweight NAS", ICLR 2021, section 3. As in that
    paper's experiments the norm is that of each tensor, not of all weights at once.
    """
    norms = (g.double().norm() for g in candidate.weight_gradients.values())
    return float(sum(map(float, norms)))


def snip(candidate: Candidate) -> float:
    """Return the sum over all weights of |g w|.

    Connection sensitivity of Lee et al., "SNIP", ICLR 2019, without its normalisation, summed as
    in Abdelfattah et al., ICLR 2021, section 3.
    """
    slopes = candidate.weight_gradients
    pairs = ((w, slopes[name]) for name, w in weights(candidate.student).items())
    return sum(float((w.detach() * g).abs().sum(dtype=torch.float64)) for w, g in pairs)


def grasp(candidate: Candidate) -> float:
    """Return minus the sum over all weights of w (H g), with H the Hessian of the loss.

    Gradient signal preservation of Wang et al., "GraSP", ICLR 2020, summed as in Abdelfattah et
    al., ICLR 2021, section 3. The sign is that of the latter, which ranks the weights to keep;
    GraSP ranks those to remove. As in the code of Abdelfattah et al., both gradients are of the
    whole batch, and the logits are divided by no temperature (GraSP has 200). A weight that is
    followed by a normalisation contributes |g|^2, up to the normalisation's epsilon.

    Raises:
        UserError: PyTorch cannot differentiate the network twice, as with Hardsigmoid.
    """
    parameters = list(weights(candidate.student).values())
    with passes.differentiating(candidate.student):
        loss = mean_loss(candidate.student, *candidate.batch)
        first = passes.gradients(loss, parameters, twice=True)
        products = [(g * g.detach()).sum() for g in first if g.requires_grad]
        second = _second_gradients(torch.stack(products).sum(), parameters)
    pairs = zip(parameters, second, strict=True)
    return -sum(float((w.detach() * h).sum(dtype=torch.float64)) for w, h in pairs)


def _second_gradients(output: Tensor, parameters: list[nn.Parameter]) -> list[Tensor]:
    try:
        return passes.gradients(output, parameters)
    except RuntimeError as error:
        if not any(words in str(error) for words in _NEVER_TWICE):
            raise
        reason = str(error).splitlines()[0]
        raise UserError(f"grasp cannot differentiate this network twice: {reason}") from error


def fisher(candidate: Candidate) -> float:
    """Return the sum over layers and channels of 1/(2B) sum_b (sum over positions of a g)^2.

    Fisher pruning of Theis et al., 2018, arXiv 1801.05787, for channels as in Turner et al.,
    "BlockSwap", ICLR 2020: each channel counts once. The activations a are the outputs of
    convolutions and linear layers, before normalisation. g is the gradient of the batch's summed
    loss in them, so that each image contributes the gradient of its own loss. Layers that run
    inside a function, such as those of `nn.MultiheadAttention`, are not included, nor are those
    that run on a detector's proposals instead of images.

    Abdelfattah et al., ICLR 2021, differ. The text of section 3 squares a g at each position and
    then sums. Their code sums first, as here, but takes the mean loss (1/B^2 of this), and adds a
    channel once for each of its weights, so that wide layers count more.
    """
    model, batch = candidate.student, candidate.batch
    outputs: list[Tensor] = []
    channels: list[int] = []

    def keep(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        if output.ndim == 2 and len(output) != len(batch.images):
            return output
        outputs.append(output)
        channels.append(-1 if isinstance(module, nn.Linear) else 1)
        return output.clone()  # a following layer that works in place changes the copy

    with hooked(layers(model), keep), passes.differentiating(model):
        loss = summed_loss(model, *batch)
        slopes = passes.gradients(loss, outputs)
    found = zip(outputs, slopes, channels, strict=True)
    return sum(_saliency(a.detach() * g, axis, len(batch.images)) for a, g, axis in found)


def _saliency(products: Tensor, axis: int, count: int) -> float:
    """Return the sum of one layer; windows and patches in the first dimension belong to images."""
    per_image = products.movedim(axis, -1).reshape(count, -1, products.shape[axis])
    return float(per_image.sum(1).double().square().sum()) / (2 * count)


def zico(candidate: Candidate) -> float:
    """Return the sum over layers of log(sum over weights of mean|g| / deviation|g|).

    Li et al., "ZiCo", ICLR 2023. Mean and population deviation are over two batches as in that
    paper; here these are the two halves of the scoring batch. A weight whose gradient is the same
    in both has no such ratio and is left out, and so is a layer in which all weights are. The
    published code takes the deviation of the gradient, the paper and this function that of its
    absolute value.

    Raises:
        UserError: The batch has fewer than four images.
    """
    images, labels = candidate.batch
    if len(images) < 2 * _BATCHES:
        raise UserError(f"zico needs at least {2 * _BATCHES} images, not {len(images)}")
    halves = zip(images.tensor_split(_BATCHES), labels.tensor_split(_BATCHES), strict=True)
    slopes = [passes.weight_gradients(candidate.student, Batch(*half)) for half in halves]
    sums = (_inverse_variation([slope[name] for slope in slopes]) for name in slopes[0])
    return sum(math.log(total) for total in sums if total)


def _inverse_variation(slopes: list[Tensor]) -> float:
    """Return the sum over the weights of one layer of mean over deviation of |g|."""
    sizes = torch.stack(slopes).abs().double()
    deviation = sizes.std(0, correction=0)
    ratios = (sizes.mean(0) / deviation)[deviation != 0]
    return float(ratios.sum())

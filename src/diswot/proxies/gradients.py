"""Scores from the gradient of the loss in the weights, at initialisation.

Letters: B batch, C channels. The loss is the mean cross-entropy on the batch; `weights` are the
trainable matrices and kernels (`blocks.weights`). Sums over all weights are taken in float64.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from diswot.data.dataset import Batch
from diswot.errors import UserError
from diswot.proxies import passes
from diswot.proxies.blocks import layers, weights
from diswot.proxies.candidate import Candidate

_BATCHES = 2  # as in the experiments of ZiCo


def grad_norm(candidate: Candidate) -> float:
    """Sum over the weights of the Euclidean norm of each one's gradient.

    Abdelfattah et al., "Zero-Cost Proxies for Lightweight NAS", ICLR 2021, section 3. The norm is
    taken tensor by tensor, as in that paper's experiments, not over all weights at once.
    """
    norms = (g.double().norm() for g in candidate.weight_gradients.values())
    return float(sum(map(float, norms)))


def snip(candidate: Candidate) -> float:
    """Sum over all weights of |g w|.

    Connection sensitivity of Lee et al., "SNIP", ICLR 2019, without its normalisation, summed as
    in Abdelfattah et al., ICLR 2021, section 3.
    """
    slopes = candidate.weight_gradients
    pairs = ((w, slopes[name]) for name, w in weights(candidate.student).items())
    return sum(float((w.detach() * g).abs().sum(dtype=torch.float64)) for w, g in pairs)


def grasp(candidate: Candidate) -> float:
    """Minus the sum over all weights of w (H g), with H the Hessian of the loss.

    Gradient signal preservation of Wang et al., "GraSP", ICLR 2020, summed as in Abdelfattah et
    al., ICLR 2021, section 3, with the sign of that paper: what to keep, where GraSP ranks what to
    remove. As in its code, both gradients are of the whole batch and the logits are divided by no
    temperature (GraSP's is 200). Each weight that a normalisation follows adds, but for its
    epsilon, |g|^2.

    Raises:
        UserError: PyTorch cannot differentiate the network twice, as with Hardsigmoid.
    """
    parameters = list(weights(candidate.student).values())
    with passes.differentiating(candidate.student):
        loss = cross_entropy(candidate.student(candidate.batch.images), candidate.batch.labels)
        first = passes.gradients(loss, parameters, again=True)
        products = [(g * g.detach()).sum() for g in first if g.requires_grad]
        second = _second(torch.stack(products).sum(), parameters)
    pairs = zip(parameters, second, strict=True)
    return -sum(float((w.detach() * h).sum(dtype=torch.float64)) for w, h in pairs)


def _second(output: Tensor, parameters: list[nn.Parameter]) -> list[Tensor]:
    try:
        return passes.gradients(output, parameters)
    except RuntimeError as error:
        if "is not implemented" not in str(error):
            raise
        reason = str(error).splitlines()[0]
        raise UserError(f"grasp cannot differentiate this network twice: {reason}") from error


def fisher(candidate: Candidate) -> float:
    """Sum over layers and channels of 1/(2B) sum_b (sum over positions of a g)^2.

    Fisher pruning of Theis et al., 2018, arXiv 1801.05787, for channels as in Turner et al.,
    "BlockSwap", ICLR 2020: each channel once. The activations a are the outputs of convolutions and
    linear layers, before normalisation; g is the gradient in them of the batch's summed loss, so
    that each image's own loss counts once. Layers that run inside a function, as those of
    `nn.MultiheadAttention`, are not seen.

    Abdelfattah et al., ICLR 2021, differ: the text of section 3 squares a g at each position and
    then sums, and their code, which sums first, as here, takes the mean loss (1/B^2 of this) and
    adds a channel once for each of its weights. In theirs wide layers count more; here all
    channels count alike, as the saliency is of channels, not of weights.
    """
    model, batch = candidate.student, candidate.batch
    outputs: list[Tensor] = []
    channels: list[int] = []

    def keep(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        outputs.append(output)
        channels.append(-1 if isinstance(module, nn.Linear) else 1)
        return output.clone()  # a following layer that works in place changes the copy

    handles = [layer.register_forward_hook(keep) for layer in layers(model)]
    try:
        with passes.differentiating(model):
            loss = cross_entropy(model(batch.images), batch.labels, reduction="sum")
            slopes = passes.gradients(loss, outputs)
    finally:
        for handle in handles:
            handle.remove()
    found = zip(outputs, slopes, channels, strict=True)
    return sum(_saliency(a.detach() * g, axis, len(batch.images)) for a, g, axis in found)


def _saliency(products: Tensor, axis: int, count: int) -> float:
    """Of one layer; windows and patches in the batch's dimension belong to their image."""
    per_image = products.movedim(axis, -1).reshape(count, -1, products.shape[axis])
    return float(per_image.sum(1).double().square().sum()) / (2 * count)


def zico(candidate: Candidate) -> float:
    """Sum over layers of log(sum over weights of mean|g| / deviation|g|), over several batches.

    Li et al., "ZiCo", ICLR 2023. Mean and (population) deviation are over two batches, as
    in that paper; here the two halves of the scoring batch. A weight whose gradient is the same in
    both has no such ratio and is left out, and so is a layer in which all are. The published code
    takes the deviation of the gradient itself; the paper (and this function) that of its size.

    Raises:
        UserError: The batch is too small to halve.
    """
    images, labels = candidate.batch
    if len(images) < 2 * _BATCHES:
        raise UserError(f"zico needs at least {2 * _BATCHES} images, not {len(images)}")
    halves = zip(images.tensor_split(_BATCHES), labels.tensor_split(_BATCHES), strict=True)
    slopes = [passes.weight_gradients(candidate.student, Batch(*half)) for half in halves]
    sums = (_inverse_variation([slope[name] for slope in slopes]) for name in slopes[0])
    return sum(math.log(total) for total in sums if total)


def _inverse_variation(slopes: list[Tensor]) -> float:
    """Sum over the weights of one layer of mean over deviation of the gradient's size."""
    sizes = torch.stack(slopes).abs().double()
    deviation = sizes.std(0, correction=0)
    ratios = (sizes.mean(0) / deviation)[deviation != 0]
    return float(ratios.sum())

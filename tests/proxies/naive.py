"""The proxies once more: slow, in float64, by finite differences and loops over single numbers.

Nothing here calls the library. Networks are copied, run in evaluation mode with normalisation that
takes the batch's statistics, and disturbed one number at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from reference import with_batch_statistics
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

STEP = 1e-5


def double(model: nn.Module) -> nn.Module:
    return with_batch_statistics(model).double()


def kernels(model: nn.Module) -> list[nn.Parameter]:
    return [p for n, p in model.named_parameters() if n.endswith("weight") and p.ndim > 1]


def slope(function: Callable[[], float], entry: Tensor) -> float:
    """Central difference of a function in one number, which is put back."""
    kept = float(entry)
    values = []
    for step in (STEP, -STEP):
        entry.fill_(kept + step)
        values.append(function())
    entry.fill_(kept)
    return (values[0] - values[1]) / (2 * STEP)


def entries(tensor: Tensor) -> Iterator[Tensor]:
    """Every number of a tensor, as a view of it."""
    flat = tensor.detach().view(-1)
    return (flat[index] for index in range(len(flat)))


@torch.no_grad()
def gradient(model: nn.Module, images: Tensor, labels: Tensor) -> list[list[float]]:
    """Of the mean cross-entropy, number by number, for each kernel of a copied network."""

    def loss() -> float:
        return float(cross_entropy(model(images), labels))

    return [[slope(loss, entry) for entry in entries(kernel)] for kernel in kernels(model)]


def grad_norm(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    parts = gradient(double(model), images, labels)
    return sum(math.sqrt(sum(g * g for g in part)) for part in parts)


def snip(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    clone = double(model)
    parts = gradient(clone, images, labels)
    total = 0.0
    for kernel, part in zip(kernels(clone), parts, strict=True):
        total += sum(abs(float(w) * g) for w, g in zip(entries(kernel), part, strict=True))
    return total


def grasp(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """-w^T H g, with H g the difference of gradients a small step along g apart."""
    clone = double(model)

    def slopes() -> list[Tensor]:
        loss = cross_entropy(clone(images), labels)
        return list(torch.autograd.grad(loss, kernels(clone)))

    first = slopes()
    sides = []
    for step in (STEP, -STEP):
        with torch.no_grad():
            for kernel, g in zip(kernels(clone), first, strict=True):
                kernel += step * g
        sides.append(slopes())
        with torch.no_grad():
            for kernel, g in zip(kernels(clone), first, strict=True):
                kernel -= step * g
    total = 0.0
    for kernel, plus, minus in zip(kernels(clone), *sides, strict=True):
        total -= float((kernel.detach() * (plus - minus)).sum()) / (2 * STEP)
    return total


@torch.no_grad()
def fisher(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """sum of a g over positions is the loss's slope when an image's whole channel is scaled."""
    clone = double(model)
    layers = [m for m in clone.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    total = 0.0
    for layer in layers:
        for image in range(len(images)):
            for channel in range(layer.weight.shape[0]):
                value = _scaled_slope(clone, layer, image, channel, images, labels)
                total += value**2 / (2 * len(images))
    return total


def _scaled_slope(
    model: nn.Module, layer: nn.Module, image: int, channel: int, images: Tensor, labels: Tensor
) -> float:
    scale = torch.ones((), dtype=torch.float64)

    def hook(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        changed = output.clone()
        if isinstance(module, nn.Linear):
            changed[image, ..., channel] *= scale
        else:
            changed[image, channel] *= scale
        return changed

    handle = layer.register_forward_hook(hook)
    value = slope(lambda: float(cross_entropy(model(images), labels, reduction="sum")), scale)
    handle.remove()
    return value


def zico(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    half = len(images) // 2
    clone = double(model)
    one = gradient(clone, images[:half], labels[:half])
    other = gradient(clone, images[half:], labels[half:])
    total = 0.0
    for part in zip(one, other, strict=True):
        ratios = []
        for pair in zip(*part, strict=True):
            a, b = abs(pair[0]), abs(pair[1])
            mean = (a + b) / 2
            deviation = math.sqrt(((a - mean) ** 2 + (b - mean) ** 2) / 2)
            if deviation > 0:
                ratios.append(mean / deviation)
        total += math.log(sum(ratios)) if ratios else 0
    return total


def synflow(model: nn.Module, image_shape: tuple[int, ...]) -> float:
    """On a copy whose normalisations are replaced and whose parameters are made positive."""
    clone = double(model)
    for module in list(clone.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d | nn.LayerNorm):
                setattr(module, name, nn.Identity())
    for name, parameter in clone.named_parameters():
        parameter.data = parameter.data.abs() * (not name.endswith("bias"))
    clone(torch.ones(1, *image_shape, dtype=torch.float64)).sum().backward()
    return math.log(sum(float((p.detach() * p.grad).sum()) for p in kernels(clone)))


@torch.no_grad()
def slopes(function: Callable[[], Tensor], entry: Tensor) -> Tensor:
    """Central differences of many values in one number, which is put back."""
    kept = float(entry)
    values = []
    for step in (STEP, -STEP):
        entry.fill_(kept + step)
        values.append(function())
    entry.fill_(kept)
    return (values[0] - values[1]) / (2 * STEP)


def ntk(model: nn.Module, images: Tensor) -> list[list[float]]:
    clone = double(model)
    columns = [
        slopes(lambda: clone(images).sum(1), entry).tolist()
        for kernel in kernels(clone)
        for entry in entries(kernel)
    ]
    rows = list(zip(*columns, strict=True))
    return [[sum(a * b for a, b in zip(r, s, strict=True)) for s in rows] for r in rows]


def fisher_information(model: nn.Module, images: Tensor, chosen: list[tuple[int, int]]) -> Tensor:
    """Mean over images of E_k[d_k d_k^T], d_k the slopes of log p_k in chosen weights."""
    clone = double(model)
    places = [kernels(clone)[k].detach().view(-1)[i] for k, i in chosen]
    tables = [slopes(lambda: clone(images).log_softmax(1), place) for place in places]
    shares = clone(images).softmax(1).detach()
    total = torch.zeros(len(chosen), len(chosen), dtype=torch.float64)
    for image in range(len(images)):
        for label in range(shares.shape[1]):
            d = torch.stack([table[image, label] for table in tables])
            total += float(shares[image, label]) * torch.outer(d, d)
    return total / len(images)


def spectrum_entropy(matrix: Tensor) -> float:
    deciles = np.quantile(np.linalg.eigvalsh(matrix.numpy()), [k / 10 for k in range(1, 10)])
    shares = [d / sum(deciles) for d in deciles]
    return -sum(s * math.log(s) for s in shares if s > 0)


def agreement(model: nn.Module, images: Tensor) -> np.ndarray:
    """How many ReLUs are on in both of two images or in neither, image by image, unit by unit."""
    clone = with_batch_statistics(model)
    codes: list[list[bool]] = [[] for _ in images]

    def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        for code, values in zip(codes, inputs[0], strict=True):
            code.extend(float(v) > 0 for v in values.reshape(-1))

    for module in clone.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_pre_hook(look)
    with torch.no_grad():
        clone(images)
    pairs = [[sum(a == b for a, b in zip(c, d, strict=True)) for d in codes] for c in codes]
    return np.array(pairs, dtype=np.float64)


@torch.no_grad()
def jacobian(model: nn.Module, images: Tensor) -> np.ndarray:
    """Slopes of the sum of all logits of the batch in every pixel."""
    clone, pixels = double(model), images.clone()
    slopes = [slope(lambda: float(clone(pixels).sum()), entry) for entry in entries(pixels)]
    return np.array(slopes).reshape(len(images), -1)


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    a, b = one - one.mean(), other - other.mean()
    return float((a * b).sum() / math.sqrt((a * a).sum() * (b * b).sum()))


def jacov(model: nn.Module, images: Tensor, k: float = 1e-5) -> float:
    rows = jacobian(model, images)
    matrix = np.array([[correlation(one, other) for other in rows] for one in rows])
    return -sum(math.log(v + k) + 1 / (v + k) for v in np.linalg.eigvalsh(matrix))


def epe_nas(
    model: nn.Module, images: Tensor, labels: Tensor, many: int = 100, k: float = 1e-5
) -> float:
    rows = jacobian(model, images)
    scores = []
    for label in range(int(labels.max()) + 1):
        of_class = [row for row, y in zip(rows, labels, strict=True) if int(y) == label]
        if of_class:
            terms = [math.log(abs(correlation(a, b)) + k) for a in of_class for b in of_class]
            scores.append((sum(terms), len(terms)))
    if len(scores) <= many:
        return sum(abs(total) for total, _ in scores)
    means = [total / count for total, count in scores]
    gaps = [abs(means[i] - means[j]) for i in range(len(means)) for j in range(i, len(means))]
    return sum(gaps) / len(means)


def zen(
    model: nn.Module, features: Callable[[nn.Module, Tensor], Tensor], seed: int, like: Tensor
) -> float:
    """With `features` for the map before pooling."""
    random = torch.Generator().manual_seed(seed)
    noise, other = (torch.randn(like.shape, generator=random).double() for _ in range(2))
    clone = double(model)
    inputs: list[Tensor] = []
    norms = [m for m in clone.modules() if isinstance(m, nn.BatchNorm2d)]
    handles = [n.register_forward_pre_hook(lambda m, i: inputs.append(i[0])) for n in norms]
    with torch.no_grad():
        one = features(clone, noise)
        for handle in handles:
            handle.remove()
        two = features(clone, noise + 0.01 * other)
    distances = [math.sqrt(float(((a - b) ** 2).sum())) for a, b in zip(one, two, strict=True)]
    score = math.log(sum(distances) / len(distances))
    for values in inputs:
        variances = [float(values[:, c].var(correction=0)) for c in range(values.shape[1])]
        score += math.log(math.sqrt(sum(variances) / len(variances)))
    return score


def component_entropy(features: Tensor) -> float:
    """Through numpy's principal components of a list of positions."""
    channels = features.shape[1]
    samples = features.double().permute(0, 2, 3, 1).reshape(-1, channels).numpy()
    values = np.linalg.svd(samples - samples.mean(0), compute_uv=False) ** 2
    shares = values / values.sum()
    return -sum(float(s) * math.log(s) for s in shares if s > 1e-15)


def block_score(
    block: Callable[[Tensor], Tensor], before: Tensor, signs: Tensor, factor: int
) -> float:
    """2 - s - 1/s of one block, its transpose summed up position by position."""
    leaf = before.double().clone().requires_grad_()
    (slope,) = torch.autograd.grad(block(leaf), leaf, signs.double())
    count, outputs, height, width = signs.shape
    matrix = np.zeros((slope.shape[1] * factor**2, outputs))
    for image in range(count):
        for y in range(height):
            for x in range(width):
                square = slope[image, :, y * factor : (y + 1) * factor]
                square = square[:, :, x * factor : (x + 1) * factor]
                matrix += np.outer(square.reshape(-1), signs[image, :, y, x])
    norm = np.linalg.svd(matrix / (count * height * width), compute_uv=False)[0]
    return float(2 - norm - 1 / norm)

"""Slow formulas in float64, written from the definitions, to hold the fast ones to.

Letters: B batch, K classes, C channels, D features.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize


def unit_rows(matrix: Tensor) -> Tensor:
    """Each row over its Euclidean length; a row of zeros stays zero."""
    result = matrix.double().clone()
    for row in result:
        length = math.sqrt(sum(float(entry) ** 2 for entry in row))
        if length > 0:
            row /= length
    return result


def gram(features: Tensor) -> Tensor:
    samples = [sample.double().reshape(-1) for sample in features]
    return torch.tensor(
        [[float((one * other).sum()) for other in samples] for one in samples], dtype=torch.float64
    )


def class_similarity(class_gradient: Tensor) -> Tensor:
    rows = unit_rows(class_gradient)
    return torch.tensor(
        [[float((one * other).sum()) for other in rows] for one in rows], dtype=torch.float64
    )


def semantic_distance(teacher: Tensor, student: Tensor, eps: float = 0.0) -> float:
    """Sum over the classes of |N(g_T g_T^T) - N(g_S g_S^T)|^2, over K * C.

    N divides each row by its length, or by `eps` where the length is less.
    """
    classes, channels = teacher.shape
    total = 0.0
    for row_t, row_s in zip(teacher.double(), student.double(), strict=True):
        scaled = []
        for row in (row_t, row_s):
            matrix = torch.outer(row, row)
            scaled.append(normalize(matrix, dim=1, eps=eps) if eps else unit_rows(matrix))
        total += float((scaled[0] - scaled[1]).square().sum())
    return total / (classes * channels)


def relation_distance(teacher: Tensor, student: Tensor) -> float:
    """Squared Frobenius norm of N(A_T A_T^T) - N(A_S A_S^T), over B^2."""
    rows_t, rows_s = unit_rows(gram(teacher)), unit_rows(gram(student))
    batch = len(rows_t)
    total = 0.0
    for i in range(batch):
        for j in range(batch):
            total += (float(rows_t[i, j]) - float(rows_s[i, j])) ** 2
    return total / batch**2


def softmax(scores: Tensor) -> list[float]:
    top = max(float(score) for score in scores)
    powers = [math.exp(float(score) - top) for score in scores]
    return [power / sum(powers) for power in powers]


def kd(teacher: Tensor, student: Tensor, temperature: float) -> float:
    """T^2 times the mean over samples of sum_k p_k log(p_k / q_k)."""
    total = 0.0
    for scores_t, scores_s in zip(teacher.double(), student.double(), strict=True):
        p, q = softmax(scores_t / temperature), softmax(scores_s / temperature)
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return temperature**2 * total / len(teacher)


def linear_class_gradient(pooled: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over samples of (p_k - [k is the label]) h_d, K x D."""
    gradient = torch.zeros(logits.shape[1], pooled.shape[1], dtype=torch.float64)
    for h, z, y in zip(pooled.double(), logits.double(), labels, strict=True):
        for k, p in enumerate(softmax(z)):
            gradient[k] += (p - float(k == int(y))) * h / len(labels)
    return gradient


def with_batch_statistics(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode, but for the normalisation layers, which train and are on."""
    clone = copy.deepcopy(model).eval()
    for module in clone.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.train()
    return clone


def class_gradient(model: nn.Module, images: Tensor, labels: Tensor, classifier: str) -> Tensor:
    """dCE/dW by autograd through a copy of the whole model, K x D."""
    clone = with_batch_statistics(model)
    loss = cross_entropy(clone(images), labels)
    (gradient,) = torch.autograd.grad(loss, clone.get_submodule(classifier).weight)
    return gradient.flatten(1)

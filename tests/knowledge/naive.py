"""Slow formulas in float64, one loop a sum, to hold the knowledge distances to.

Letters: B batch, K classes, C channels, D features, N positions. Maps are B x C x H x W.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from reference import class_similarity, gram, relation_distance, softmax, unit_rows
from torch import Tensor

Pairs = Sequence[tuple[Tensor, Tensor]]


def dot(one: Sequence[float], other: Sequence[float]) -> float:
    return math.fsum(a * b for a, b in zip(one, other, strict=True))


def unit(values: Sequence[float]) -> list[float]:
    length = math.sqrt(dot(values, values))
    return [value / length for value in values] if length else list(values)


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def squared(one: Sequence[float], other: Sequence[float]) -> float:
    return math.fsum((a - b) ** 2 for a, b in zip(one, other, strict=True))


def rows(tensor: Tensor) -> list[list[float]]:
    return tensor.double().flatten(1).tolist()


def pooled(maps: Tensor, height: int, width: int) -> Tensor:
    """Average of the cells that overlap each cell of the smaller grid."""
    result = torch.zeros(*maps.shape[:2], height, width, dtype=torch.float64)
    for i, j in product(range(height), range(width)):
        top, bottom = i * maps.shape[2] // height, -(-(i + 1) * maps.shape[2] // height)
        left, right = j * maps.shape[3] // width, -(-(j + 1) * maps.shape[3] // width)
        result[:, :, i, j] = maps.double()[:, :, top:bottom, left:right].mean((2, 3))
    return result


# Classes and outputs


def semantic_class(teacher: Tensor, student: Tensor) -> float:
    ours, theirs = class_similarity(teacher), class_similarity(student)
    return mean([squared(a, b) for a, b in zip(rows(ours), rows(theirs), strict=True)]) / len(ours)


def activation_map(maps: Tensor, weights: Tensor) -> Tensor:
    """ReLU of the weighted sum of channels, B x 1 x H x W."""
    result = torch.zeros(len(maps), 1, *maps.shape[2:], dtype=torch.float64)
    for b, (channels, weight) in enumerate(zip(maps.double(), weights.double(), strict=True)):
        for channel, alpha in zip(channels, weight, strict=True):
            result[b, 0] += alpha * channel
    return result.clamp_min(0)


def gradcam(teacher: tuple[Tensor, Tensor], student: tuple[Tensor, Tensor]) -> float:
    """Of maps and weights."""
    ours, theirs = activation_map(*teacher), activation_map(*student)
    grid = min(ours.shape[2], theirs.shape[2]), min(ours.shape[3], theirs.shape[3])
    pairs = zip(rows(pooled(ours, *grid)), rows(pooled(theirs, *grid)), strict=True)
    return mean([squared(unit(a), unit(b)) for a, b in pairs])


def dkd(
    teacher: Tensor, student: Tensor, labels: Tensor, alpha: float, beta: float, temperature: float
) -> float:
    total = 0.0
    for z_t, z_s, y in zip(teacher.double(), student.double(), labels.tolist(), strict=True):
        p, q = softmax(z_t / temperature), softmax(z_s / temperature)
        others = [k for k in range(len(p)) if k != y]
        rest_p, rest_q = math.fsum(p[k] for k in others), math.fsum(q[k] for k in others)
        total += alpha * p[y] * math.log(p[y] / q[y])
        total += alpha * rest_p * math.log(rest_p / rest_q)
        for k in others:
            a, b = p[k] / rest_p, q[k] / rest_q
            total += beta * a * math.log(a / b)
    return temperature**2 * total / len(teacher)


def pearson(one: Sequence[float], other: Sequence[float]) -> float:
    a, b = ([value - mean(values) for value in values] for values in (one, other))
    return dot(a, b) / math.sqrt(dot(a, a) * dot(b, b))


def dist(teacher: Tensor, student: Tensor, beta: float, gamma: float, temperature: float) -> float:
    p, q = ([softmax(row / temperature) for row in z.double()] for z in (teacher, student))
    between = mean([1 - pearson(a, b) for a, b in zip(p, q, strict=True)])
    columns = zip(zip(*p, strict=True), zip(*q, strict=True), strict=True)
    within = mean([1 - pearson(a, b) for a, b in columns])
    return temperature**2 * (beta * between + gamma * within)


def z_scores(logits: Tensor) -> Tensor:
    """Of each row, with the deviation that divides by K - 1."""
    result = []
    for row in logits.double().tolist():
        middle = mean(row)
        deviation = math.sqrt(math.fsum((z - middle) ** 2 for z in row) / (len(row) - 1))
        result.append([(z - middle) / deviation for z in row])
    return torch.tensor(result, dtype=torch.float64)


def wttm(teacher: Tensor, student: Tensor, temperature: float) -> float:
    total = 0.0
    for z_t, z_s in zip(teacher.double(), student.double(), strict=True):
        powers = [p ** (1 / temperature) for p in softmax(z_t)]
        norm, q = math.fsum(powers), softmax(z_s)
        softened = [power / norm for power in powers]
        total += norm * math.fsum(a * math.log(a / b) for a, b in zip(softened, q, strict=True))
    return total / len(teacher)


def mlkd(teacher: Tensor, student: Tensor, temperatures: Sequence[float]) -> float:
    total = 0.0
    for t in temperatures:
        p, q = ([softmax(row / t) for row in z.double()] for z in (teacher, student))
        entries = [
            a * math.log(a / b)
            for r, s in zip(p, q, strict=True)
            for a, b in zip(r, s, strict=True)
        ]
        total += t**2 * math.fsum(entries) / len(p) + _inner(p, q)
        total += _inner(list(zip(*p, strict=True)), list(zip(*q, strict=True)))
    return total


def _inner(one: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> float:
    pairs = product(range(len(one)), repeat=2)
    return math.fsum((dot(one[i], one[j]) - dot(other[i], other[j])) ** 2 for i, j in pairs) / len(
        one
    )


# Maps


def cwd(pairs: Pairs, temperature: float) -> float:
    losses = []
    for teacher, student in pairs:
        total = 0.0
        for b, c in product(range(teacher.shape[0]), range(teacher.shape[1])):
            p, q = (softmax(m[b, c].flatten().double() / temperature) for m in (teacher, student))
            total += math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        losses.append(temperature**2 * total / (teacher.shape[0] * teacher.shape[1]))
    return mean(losses)


def pkd(pairs: Pairs) -> float:
    """One minus the correlations of channels that vary."""
    losses = []
    for teacher, student in pairs:
        channels = range(teacher.shape[1])
        values = (
            [m[:, c].flatten().double().tolist() for m in (teacher, student)] for c in channels
        )
        losses.append(mean([1 - pearson(a, b) for a, b in values]))
    return mean(losses)


def fitnet(pairs: Pairs) -> float:
    return mean([float((a.double() - b.double()).square().mean()) for a, b in pairs])


def ab(pairs: Pairs, margin: float) -> float:
    losses = []
    for teacher, student in pairs:
        entries = zip(teacher.flatten().tolist(), student.double().flatten().tolist(), strict=True)
        losses.append(mean([_boundary(t, s, margin) for t, s in entries]))
    return mean(losses)


def _boundary(teacher: float, student: float, margin: float) -> float:
    wrong = margin - student if teacher > 0 else margin + student
    return max(0.0, wrong) ** 2


def vid(pairs: Pairs, variances: Sequence[Tensor]) -> float:
    losses = []
    for (teacher, student), spread in zip(pairs, variances, strict=True):
        values = []
        for c, v in enumerate(spread.tolist()):
            errors = (teacher[:, c].double() - student[:, c].double()).flatten().tolist()
            values += [error**2 / (2 * v) + math.log(v) / 2 for error in errors]
        losses.append(mean(values))
    return mean(losses)


def at(pairs: Pairs) -> float:
    losses = []
    for teacher, student in pairs:
        looks = [maps.double().square().sum(1) for maps in (teacher, student)]
        ours, theirs = (rows(look) for look in looks)
        losses += [squared(unit(a), unit(b)) for a, b in zip(ours, theirs, strict=True)]
    return mean(losses)


def nst(pairs: Pairs) -> float:
    losses = []
    for teacher, student in pairs:
        for ours, theirs in zip(teacher.double(), student.double(), strict=True):
            x, y = ([unit(row) for row in rows(maps)] for maps in (ours, theirs))
            losses.append(_kernel(x, x) + _kernel(y, y) - 2 * _kernel(x, y))
    return mean(losses)


def _kernel(x: Sequence[Sequence[float]], y: Sequence[Sequence[float]]) -> float:
    return mean([dot(a, b) ** 2 for a, b in product(x, y)])


def largest(maps: Tensor, height: int, width: int) -> Tensor:
    """Maximum of the cells that overlap each cell of the smaller grid."""
    result = torch.zeros(*maps.shape[:2], height, width, dtype=torch.float64)
    for i, j in product(range(height), range(width)):
        top, bottom = i * maps.shape[2] // height, -(-(i + 1) * maps.shape[2] // height)
        left, right = j * maps.shape[3] // width, -(-(j + 1) * maps.shape[3] // width)
        result[:, :, i, j] = maps.double()[:, :, top:bottom, left:right].amax((2, 3))
    return result


def ends(maps: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    if len(maps) == 1:
        return [(maps[0], maps[0])]
    return [(maps[i], maps[i + 1]) for i in range(len(maps) - 1)]


def flow(first: Tensor, second: Tensor) -> Tensor:
    """B x C x C'."""
    first = largest(first, *second.shape[2:])
    result = torch.zeros(len(first), first.shape[1], second.shape[1], dtype=torch.float64)
    for b, c, d in product(*map(range, result.shape)):
        x, y = first[b, c].flatten().tolist(), second[b, d].double().flatten().tolist()
        result[b, c, d] = dot(x, y) / len(x)
    return result


def fsp(pairs: Pairs) -> float:
    ours, theirs = (ends(maps) for maps in zip(*pairs, strict=True))
    return mean(
        [float((flow(*a) - flow(*b)).square().mean()) for a, b in zip(ours, theirs, strict=True)]
    )


def ickd(pairs: Pairs) -> float:
    losses = []
    for teacher, student in pairs:
        for ours, theirs in zip(teacher, student, strict=True):
            a, b = unit_rows(gram(ours)), unit_rows(gram(theirs))
            losses.append(float((a - b).square().sum()) / len(a))
    return mean(losses)


def singular(sample: Tensor, count: int) -> list[np.ndarray]:
    """Leading right singular vectors of a map C x H x W as HW x C; zeros for vanishing values."""
    _, values, vectors = np.linalg.svd(sample.double().flatten(1).T.numpy())
    vectors = vectors[: min(count, len(values))]
    vectors = [-v if v.sum() < 0 else v for v in vectors]
    return [v * (s**2 > 1e-5 * values[0] ** 2) for v, s in zip(vectors, values, strict=False)]


def kdsvd(pairs: Pairs) -> float:
    losses = []
    for b in range(len(pairs[0][0])):
        ours, theirs = [], []
        for teacher, student in pairs:
            (v,) = singular(teacher[b], 1)
            u = max(singular(student[b], 4), key=lambda u, v=v: abs(u @ v))
            ours.append(v)
            theirs.append(-u if u @ v < 0 else u)
        for (a, a_next), (c, c_next) in zip(ends(ours), ends(theirs), strict=True):
            difference = _flow_of_vectors(a, a_next) - _flow_of_vectors(c, c_next)
            losses.append(float((difference**2).sum()))
    return mean(losses)


def _flow_of_vectors(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.array([[math.exp(-((a - b) ** 2) / 8) for b in second] for a in first])


# Samples among samples


def sp(pairs: Pairs) -> float:
    return mean([relation_distance(a, b) for a, b in pairs])


def cka(pairs: Pairs) -> float:
    return mean([1 - alignment(a, b) for a, b in pairs])


def alignment(first: Tensor, second: Tensor) -> float:
    """By covariances, not Gram matrices: |Y^T X|^2 / (|X^T X| |Y^T Y|)."""
    x, y = (t.double().flatten(1) for t in (first, second))
    x, y = x - x.mean(0), y - y.mean(0)
    return float((y.T @ x).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm()))


def huber(one: float, other: float) -> float:
    error = abs(one - other)
    return error**2 / 2 if error < 1 else error - 0.5


def rkd(teacher: Tensor, student: Tensor, distance: float, angle: float) -> float:
    (far_t, turn_t), (far_s, turn_s) = _geometry(rows(teacher)), _geometry(rows(student))
    far = mean([huber(a, b) for a, b in zip(far_t, far_s, strict=True)])
    turn = mean([huber(a, b) for a, b in zip(turn_t, turn_s, strict=True)])
    return distance * far + angle * turn


def _geometry(points: list[list[float]]) -> tuple[list[float], list[float]]:
    far = [math.sqrt(squared(a, b)) for a, b in product(points, points)]
    scale = mean([value for value in far if value > 0])
    turns = []
    for a, at, b in product(points, points, points):
        first = unit([x - y for x, y in zip(a, at, strict=True)])
        second = unit([x - y for x, y in zip(b, at, strict=True)])
        turns.append(dot(first, second))
    return [value / scale for value in far], turns


def pkt(teacher: Tensor, student: Tensor) -> float:
    ours, theirs = _neighbours(rows(teacher)), _neighbours(rows(student))
    total = 0.0
    for p, q in zip(ours, theirs, strict=True):
        total += math.fsum(a * math.log((a + 1e-7) / (b + 1e-7)) for a, b in zip(p, q, strict=True))
    return total / len(ours)


def _neighbours(points: list[list[float]]) -> list[list[float]]:
    points = [unit(point) for point in points]
    result = []
    for i, point in enumerate(points):
        near = [(1 + dot(point, other)) / 2 for j, other in enumerate(points) if j != i]
        result.append([value / math.fsum(near) for value in near])
    return result


def cc(teacher: Tensor, student: Tensor, gamma: float, order: int) -> float:
    ours, theirs = (
        [_series(dot(unit(a), unit(b)), gamma, order) for a, b in product(rows(h), rows(h))]
        for h in (teacher, student)
    )
    return squared(ours, theirs) / len(ours)


def _series(cosine: float, gamma: float, order: int) -> float:
    total = 0.0
    for p in range(order + 1):
        total += math.exp(-2 * gamma) * (2 * gamma) ** p / math.factorial(p) * cosine**p
    return total

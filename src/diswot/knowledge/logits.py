"""Distances of the outputs: the probabilities that a network gives to the classes.

All compare the `logits`, N x K, of the two observations, and raise a `UserError` if the numbers of
classes differ. A temperature T is above zero.

Letters: N rows, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import kl_div, mse_loss, one_hot

from diswot.errors import UserError
from diswot.knowledge.rows import check_rows
from diswot.knowledge.stages import Pair, at_least_float32, centred
from diswot.observation.functional import unit_rows
from diswot.observation.observe import Observation

STEPS = (0.5, 0.75, 1.0, 1.25, 1.5)  # of mlkd: 2, 3, 4, 5 and 6 at the published T = 4


def kd(teacher: Observation, student: Observation, temperature: float = 4.0) -> Tensor:
    """Knowledge distillation: the divergence of the softened outputs, in nats.

    T^2 KL(softmax(Z_T / T) || softmax(Z_S / T)), averaged over rows. The distance is at least 0.

    Hinton et al., 2015 (arXiv 1503.02531).
    """
    target, output = (z.log_softmax(1) for z in _softened("kd", teacher, student, temperature))
    return temperature**2 * _divergence(target, output)


def dkd(
    teacher: Observation,
    student: Observation,
    alpha: float = 1.0,
    beta: float = 2.0,
    temperature: float = 4.0,
) -> Tensor:
    """Decoupled knowledge distillation: the divergences of target and other classes, in nats.

    T^2 (alpha KL(b_T || b_S) + beta KL(q_T || q_S)), averaged over rows. b are the probabilities
    of the target and of all other classes together, q is the softmax among the other classes. With
    alpha = 1, and beta = 1 - p_T(target) in each row, it is `kd`. K is at least 2; the targets are
    the student's. The distance is at least 0.

    Zhao et al., CVPR 2022, eq. 7. The factor T^2 and the defaults are those of the published code
    for ResNet-56 to ResNet-20 and ResNet-110 to ResNet-32. Other pairs have a beta of 6 or 8 there.
    The weight grows over the first 20 of 240 epochs (`Recipe.ramp_epochs`).
    """
    softened = _softened("dkd", teacher, student, temperature)
    is_target = one_hot(student.targets, student.logits.shape[1]).bool()
    binary = [_target_or_not(z.log_softmax(1), is_target) for z in softened]
    others = [_others(z, is_target).log_softmax(1) for z in softened]
    return temperature**2 * (alpha * _divergence(*binary) + beta * _divergence(*others))


def dist(
    teacher: Observation,
    student: Observation,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 1.0,
) -> Tensor:
    """DIST: one minus the correlations of the outputs, between classes and within classes.

    T^2 (beta mean(1 - r(p_T, p_S)) + gamma mean(1 - r'(p_T, p_S))). p is softmax(Z / T), r is
    Pearson's correlation of two rows and r' that of two columns. The distance lies between 0 and 2
    T^2 (beta + gamma).

    Huang et al., NeurIPS 2022. The factor T^2 and the defaults are those of the published code,
    which adds 1e-8 to the product of lengths. Here nothing is added: a row or column that is
    constant to within rounding has the correlation 0.
    """
    target, output = (z.softmax(1) for z in _softened("dist", teacher, student, temperature))
    between, within = _uncorrelated(target, output), _uncorrelated(target.T, output.T)
    return temperature**2 * (beta * between + gamma * within)


def wttm(teacher: Observation, student: Observation, temperature: float = 5.0) -> Tensor:
    """Weighted transformed teacher matching: the student's plain outputs, the teacher's softened.

    U KL(softmax(Z_T / T) || softmax(Z_S)), averaged over rows. U is the sum of the teacher's
    probabilities to the power 1 / T: large in rows in which the teacher is unsure. With T = 1, the
    lowest, it is `kd` with T = 1. The distance is at least 0.

    Zheng and Yang, ICLR 2024 (arXiv 2402.11148). The paper tunes T and the weight for each
    pair of networks; the default is one of its examples. If T is not 1, the distance of a network
    to itself is not zero.
    """
    logits_t, logits_s = same_classes("wttm", teacher, student)
    doubt = (logits_t.log_softmax(1) / temperature).exp().sum(1)
    target, output = (logits_t / temperature).log_softmax(1), logits_s.log_softmax(1)
    return (doubt * kl_div(output, target, reduction="none", log_target=True).sum(1)).mean()


def mlkd(teacher: Observation, student: Observation, temperature: float = 4.0) -> Tensor:
    """Multi-level logit distillation: rows, pairs of rows and pairs of classes must agree.

    Summed over five temperatures t around the temperature T, with P = softmax(Z / t), N x K:
    t^2 KL(P_T || P_S) + ||P_T P_T^T - P_S P_S^T||_F^2 / N + ||P_T^T P_T - P_S^T P_S||_F^2 / K.
    The distance is at least 0.

    Jin et al., CVPR 2023. The paper sums over a weakly and a strongly augmented view of each image,
    too; a recipe with `views = 2` takes the mean over both. The published code scales the parts of
    the weak view by the share of rows or classes that the teacher is least sure of.
    """
    logits = same_classes("mlkd", teacher, student)
    parts = []
    for t in (temperature * step for step in STEPS):
        target, output = ((z / t).softmax(1) for z in logits)
        parts += [kd(teacher, student, t), _pairs(target, output), _pairs(target.T, output.T)]
    return torch.stack(parts).sum()


def _softened(name: str, teacher: Observation, student: Observation, temperature: float) -> Pair:
    """Return the logits over T, in float32 or float64, after a check of their shapes."""
    logits_t, logits_s = same_classes(name, teacher, student)
    return logits_t / temperature, logits_s / temperature


def same_classes(name: str, teacher: Observation, student: Observation) -> Pair:
    """Return the logits, N x K each, in float32 or float64, after a check of their shapes.

    Raises:
        UserError: Teacher and student have different numbers of classes, or are detectors with
            different anchors.
    """
    check_rows(name, teacher, student, "logits")
    if teacher.logits.shape != student.logits.shape:
        raise UserError(
            f"{name} needs one number of classes: teacher {teacher.logits.shape[1]}, "
            f"student {student.logits.shape[1]}"
        )
    return at_least_float32(teacher.logits), at_least_float32(student.logits)


def _divergence(target: Tensor, output: Tensor) -> Tensor:
    """Return the KL divergence of log-probabilities, averaged over rows."""
    return kl_div(output, target, reduction="batchmean", log_target=True)


def _others(values: Tensor, is_target: Tensor) -> Tensor:
    """Return the entries of all classes but the target, N x (K - 1)."""
    return values[~is_target].view(len(values), -1)


def _target_or_not(logs: Tensor, is_target: Tensor) -> Tensor:
    """Return the log-probabilities of the target and of all other classes together, N x 2."""
    return torch.stack((logs[is_target], _others(logs, is_target).logsumexp(1)), 1)


def _uncorrelated(target: Tensor, output: Tensor) -> Tensor:
    """Return one minus Pearson's correlation of two rows, averaged over rows."""
    return 1 - (unit_rows(centred(target)) * unit_rows(centred(output))).sum(1).mean()


def _pairs(target: Tensor, output: Tensor) -> Tensor:
    """Return the squared difference of the inner products of rows, over the number of rows."""
    return mse_loss(output @ output.T, target @ target.T, reduction="sum") / len(target)

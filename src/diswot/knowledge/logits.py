"""What the outputs know: how probable the teacher finds every class."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import kl_div, one_hot

from diswot.errors import UserError
from diswot.knowledge.stages import Pair, centred, single
from diswot.observation.functional import unit_rows
from diswot.observation.observe import Observation


def kd(teacher: Observation, student: Observation, temperature: float = 4.0) -> Tensor:
    """Knowledge distillation: softened outputs, compared. Hinton et al., 2015 (arXiv 1503.02531).

    T^2 KL(softmax(z_T / T) || softmax(z_S / T)), averaged over the batch, in nats.

    Args:
        teacher: Its logits, B x K, are used.
        student: Likewise.
        temperature: T, above zero.

    Raises:
        UserError: Teacher and student have different numbers of classes.
    """
    target, output = (z.log_softmax(1) for z in _softened("kd", teacher, student, temperature))
    return temperature**2 * _divergence(target, output)


def dkd(
    teacher: Observation,
    student: Observation,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
) -> Tensor:
    """Decoupled knowledge distillation: the label and the other classes, compared apart.

    T^2 (alpha KL(b_T || b_S) + beta KL(q_T || q_S)), averaged over the batch: b is the pair of
    probabilities of the label and of all else, q the softmax among the classes that are not the
    label. Zhao et al., CVPR 2022, eq. 7; the factor T^2, the defaults and no approximation are
    the published code's, but its weight does not grow over the first epochs. With alpha = 1 and
    the teacher's doubt instead of beta it is `kd`.

    Args:
        teacher: Its logits, B x K with K at least 2, are used.
        student: Likewise, and the labels.
        alpha: Weight of the target class.
        beta: Weight of the others.
        temperature: T, above zero.

    Raises:
        UserError: Teacher and student have different numbers of classes.
    """
    softened = _softened("dkd", teacher, student, temperature)
    label = one_hot(student.labels, student.logits.shape[1]).bool()
    binary = [_label_or_not(z.log_softmax(1), label) for z in softened]
    others = [_others(z, label).log_softmax(1) for z in softened]
    return temperature**2 * (alpha * _divergence(*binary) + beta * _divergence(*others))


def dist(
    teacher: Observation,
    student: Observation,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 1.0,
) -> Tensor:
    """DIST: the correlations of the outputs, not their values, compared.

    beta times the mean over samples of 1 - r(p_T, p_S), and gamma times the mean over classes of
    the same between columns; p is softmax(z / T), r Pearson's correlation; times T^2. Huang et
    al., NeurIPS 2022; the factor T^2 and the defaults are the published code's, which adds 1e-8 to
    the product of lengths. Here nothing is added: a row or column that is constant, to within
    rounding, has the correlation 0.

    Args:
        teacher: Its logits, B x K, are used.
        student: Likewise.
        beta: Weight of the correlations between classes.
        gamma: Weight of the correlations within a class.
        temperature: T, above zero.

    Returns:
        A scalar between 0 and 2 T^2 (beta + gamma).

    Raises:
        UserError: Teacher and student have different numbers of classes.
    """
    target, output = (z.softmax(1) for z in _softened("dist", teacher, student, temperature))
    between, within = _uncorrelated(target, output), _uncorrelated(target.T, output.T)
    return temperature**2 * (beta * between + gamma * within)


def _softened(name: str, teacher: Observation, student: Observation, temperature: float) -> Pair:
    """Logits over T, at least in single precision, after a check of their shapes."""
    if teacher.logits.shape != student.logits.shape:
        raise UserError(
            f"{name} needs one number of classes: teacher {teacher.logits.shape[1]}, "
            f"student {student.logits.shape[1]}"
        )
    return single(teacher.logits) / temperature, single(student.logits) / temperature


def _divergence(target: Tensor, output: Tensor) -> Tensor:
    """KL of log-probabilities, averaged over the batch."""
    return kl_div(output, target, reduction="batchmean", log_target=True)


def _others(values: Tensor, label: Tensor) -> Tensor:
    """The entries of all classes but the label, B x (K - 1)."""
    return values[~label].view(len(values), -1)


def _label_or_not(logs: Tensor, label: Tensor) -> Tensor:
    """Log-probability of the label, and of all else, B x 2."""
    return torch.stack((logs[label], _others(logs, label).logsumexp(1)), 1)


def _uncorrelated(target: Tensor, output: Tensor) -> Tensor:
    """One minus Pearson's correlation of two rows, averaged over the rows."""
    return 1 - (unit_rows(centred(target, 1)) * unit_rows(centred(output, 1))).sum(1).mean()

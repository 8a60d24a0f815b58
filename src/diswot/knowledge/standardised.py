"""Distances of outputs whose `logits` are standardised first, a row at a time.

A shared temperature asks the student for the teacher's range of logits. Standardised, the logits of
a row agree if one is an increasing affine function of the other. So a small student need only rank
the classes as its teacher does, in the same proportions. All raise a `UserError` if the numbers of
classes differ.

Letters: N rows, K classes.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from diswot.knowledge.logits import dist, dkd, kd, same_classes
from diswot.knowledge.stages import centred
from diswot.observation.functional import unit_rows
from diswot.observation.observe import Observation


def standardised(
    name: str, teacher: Observation, student: Observation
) -> tuple[Observation, Observation]:
    """Subtract from the logits of each row their mean, and divide by their standard deviation.

    The published code adds 1e-7 to the deviation. Here nothing is added: a row that is constant to
    within rounding becomes a row of zeros.
    """
    logits_t, logits_s = (
        unit_rows(centred(logits)) * (logits.shape[1] - 1) ** 0.5
        for logits in same_classes(name, teacher, student)
    )
    return replace(teacher, logits=logits_t), replace(student, logits=logits_s)


def kd_standardised(teacher: Observation, student: Observation, temperature: float = 2.0) -> Tensor:
    """Return `kd` of standardised logits, in nats; T is in units of a row's standard deviation.

    Sun et al., CVPR 2024 (arXiv 2403.01427). The factor T^2 is that of the published code.
    """
    return kd(*standardised("kd_standardised", teacher, student), temperature)


def dkd_standardised(
    teacher: Observation,
    student: Observation,
    alpha: float = 1.0,
    beta: float = 2.0,
    temperature: float = 2.0,
) -> Tensor:
    """Return `dkd` of standardised logits, in nats; T is in units of a row's standard deviation.

    Sun et al., CVPR 2024 (arXiv 2403.01427). The published code tunes beta, temperature and weight
    for each pair of networks; these are its values for most pairs.
    """
    return dkd(*standardised("dkd_standardised", teacher, student), alpha, beta, temperature)


def dist_standardised(
    teacher: Observation,
    student: Observation,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 2.0,
) -> Tensor:
    """Return `dist` of standardised logits; T is in units of a row's standard deviation.

    The paper of logit standardisation (Sun et al., CVPR 2024) does not combine the two. The
    temperature is its base temperature.
    """
    return dist(*standardised("dist_standardised", teacher, student), beta, gamma, temperature)

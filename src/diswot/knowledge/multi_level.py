"""Multi-level logit distillation: the `logits` at several temperatures, row by row and pairwise.

Letters: N rows, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from diswot.knowledge.logits import kd, same_classes
from diswot.observation.observe import Observation

STEPS = (0.5, 0.75, 1.0, 1.25, 1.5)  # of the temperature: 2, 3, 4, 5 and 6 at the published T = 4


def mlkd(teacher: Observation, student: Observation, temperature: float = 4.0) -> Tensor:
    """Multi-level logit distillation: rows, pairs of rows and pairs of classes must agree.

    Summed over five temperatures t around the temperature T, with P = softmax(Z / t), N x K:
    t^2 KL(P_T || P_S) + ||P_T P_T^T - P_S P_S^T||_F^2 / N + ||P_T^T P_T - P_S^T P_S||_F^2 / K.
    The distance is at least 0.

    Jin et al., CVPR 2023. The paper sums over a weakly and a strongly augmented view of each image,
    too; a recipe with `views = 2` takes the mean over both. The published code scales the parts of
    the weak view by the share of rows or classes that the teacher is least sure of.

    Raises:
        UserError: Teacher and student have different numbers of classes.
    """
    logits = same_classes("mlkd", teacher, student)
    parts = []
    for t in (temperature * step for step in STEPS):
        target, output = ((z / t).softmax(1) for z in logits)
        parts += [kd(teacher, student, t), _pairs(target, output), _pairs(target.T, output.T)]
    return torch.stack(parts).sum()


def _pairs(target: Tensor, output: Tensor) -> Tensor:
    """Return the squared difference of the inner products of rows, over the number of rows."""
    return mse_loss(output @ output.T, target @ target.T, reduction="sum") / len(target)

"""Agreement of a student's predictions with the teacher's, on one batch.

With fresh weights both numbers are chance. They are meant for a student that has inherited what
fits of its trained teacher. Both raise a `UserError` if the numbers of classes differ, two
detectors have different anchors, or there is no teacher.

Letters: N rows, K classes.
"""

from __future__ import annotations

from torch import Tensor

from diswot.knowledge.logits import same_classes
from diswot.observation.observe import Observation
from diswot.proxies.candidate import Candidate


def agreement(candidate: Candidate) -> float:
    """Return minus KL(p_T || p_S) in nats, p = softmax(Z), mean over rows.

    The temperature is 1. The highest value is 0, for equal predictions.
    """
    teacher, student = (logits.log_softmax(1) for logits in _logits(*candidate.observations))
    return float((teacher.exp() * (student - teacher)).sum(1).mean())


def agreement_top1(candidate: Candidate) -> float:
    """Return the share of rows, 0 to 1, whose highest logit is of one class in both networks."""
    teacher, student = (logits.argmax(1) for logits in _logits(*candidate.observations))
    return float((teacher == student).float().mean())


def _logits(teacher: Observation, student: Observation) -> tuple[Tensor, Tensor]:
    """Return the logits of both networks, N x K, in float32."""
    one, other = same_classes("agreement", teacher, student)
    return one.float(), other.float()

"""The DisWOT score."""

from __future__ import annotations

from diswot.knowledge.relation import relation
from diswot.knowledge.semantic import semantic
from diswot.proxies.candidate import Candidate


def diswot(candidate: Candidate) -> float:
    """Return minus the semantic distance, minus the relation distance; 0 at most.

    DisWOT, CVPR 2023, eq. 8: both distances on one batch, teacher and student with random weights.

    Raises:
        UserError: The classifiers of teacher and student have different shapes.
    """
    return -float(semantic(*candidate.observations)) - float(relation(*candidate.observations))

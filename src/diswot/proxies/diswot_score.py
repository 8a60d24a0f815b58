"""Scores made of several parts."""

from __future__ import annotations

from diswot.knowledge.relation import relation
from diswot.knowledge.semantic import semantic
from diswot.proxies.candidate import Candidate


def diswot(candidate: Candidate) -> float:
    """The DisWOT score: minus semantic distance, minus relation distance. CVPR 2023, eq. 8.

    Both on one batch, teacher and student with random weights.
    """
    seen = candidate.teacher, candidate.observation
    return -float(semantic(*seen)) - float(relation(*seen))

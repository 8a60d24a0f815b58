"""Sizes as scores: the baselines that any other proxy has to beat."""

from __future__ import annotations

import math

from diswot.costs.counts import count, count_depth, count_params
from diswot.proxies.candidate import Candidate


def params(candidate: Candidate) -> float:
    """Return the number of parameters."""
    return count_params(candidate.student)


def macs(candidate: Candidate) -> float:
    """Return the multiply-adds of one image; the conventions stand in `costs.budget`.

    Raises:
        UserError: An operation has no formula.
    """
    _, channels, height, width = candidate.batch.images.shape
    return count(candidate.student, (channels, height, width)).all_macs()


def depth(candidate: Candidate) -> float:
    """Return the number of layers with weights."""
    return count_depth(candidate.student)


def size(candidate: Candidate) -> float:
    """Return log params + log depth; minus infinity for a student without weights."""
    product = params(candidate) * depth(candidate)
    return math.log(product) if product else -math.inf

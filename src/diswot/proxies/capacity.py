"""Sizes as scores: what any other proxy has to beat."""

from __future__ import annotations

from diswot import budget
from diswot.proxies.candidate import Candidate


def params(candidate: Candidate) -> float:
    """Number of trainable parameters."""
    return budget.count_params(candidate.student)


def macs(candidate: Candidate) -> float:
    """Multiply-adds of one image; conventions in `diswot.budget`."""
    _, channels, height, width = candidate.batch.images.shape
    return budget.count_macs(candidate.student, (channels, height, width))


def depth(candidate: Candidate) -> float:
    """Number of trainable layers."""
    return budget.count_depth(candidate.student)

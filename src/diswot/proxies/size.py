"""Sizes as scores: what any other proxy has to beat."""

from __future__ import annotations

from diswot.costs.counts import count_depth, count_macs, count_params
from diswot.proxies.candidate import Candidate


def params(candidate: Candidate) -> float:
    """Number of trainable parameters."""
    return count_params(candidate.student)


def macs(candidate: Candidate) -> float:
    """Multiply-adds of one image; conventions in `diswot.costs`."""
    _, channels, height, width = candidate.batch.images.shape
    return count_macs(candidate.student, (channels, height, width))


def depth(candidate: Candidate) -> float:
    """Number of trainable layers."""
    return count_depth(candidate.student)

"""Scores of a student that need no training, the table of them, and how to compute them."""

from __future__ import annotations

from diswot.proxies.candidate import Candidate
from diswot.proxies.scoring import NotScored, Outcome, Scorer, score, scorer, standard_error
from diswot.proxies.table import PROXIES, Proxy, Score, by_init, get

__all__ = [
    "PROXIES",
    "Candidate",
    "NotScored",
    "Outcome",
    "Proxy",
    "Score",
    "Scorer",
    "by_init",
    "get",
    "score",
    "scorer",
    "standard_error",
]

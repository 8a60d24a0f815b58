"""Searches of tests, with the options of all groups side by side."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from diswot.nas.api import StudySettings
from diswot.nas.api import search as find
from diswot.nas.compute import Compute
from diswot.nas.evaluator import Scoring
from diswot.nas.result import SearchResult

_GROUPS = {"scoring": Scoring, "compute": Compute, "study": StudySettings}


def search(*positional: Any, **options: Any) -> SearchResult:
    """Search by `diswot.search`; each option goes into the group that has it."""
    short = {"study_name": "name", "config": "facts", "trials": "n_trials", "cluster": "ray"}
    options = {short.get(key, key): value for key, value in options.items()}
    if "devices" in options:
        options["devices"] = tuple(options["devices"])
    for group, kind in _GROUPS.items():
        own = {f.name: options.pop(f.name) for f in fields(kind) if f.name in options}
        options[group] = kind(**own)
    return find(*positional, **options)

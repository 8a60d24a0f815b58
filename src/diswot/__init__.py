"""DisWOT: find the student network that a teacher can teach best, without training; then teach it.

Method: Dong, Li, Wei, "DisWOT: Student Architecture Search for Distillation WithOut Training",
CVPR 2023 (arXiv 2303.15678). Names are imported on first use, so that `import diswot` is quick.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

_HOME = {
    "Budget": "diswot.costs.budget",
    "Compute": "diswot.nas.compute",
    "Inheritance": "diswot.models.inheritance",
    "Observation": "diswot.observation.observe",
    "Scoring": "diswot.nas.evaluator",
    "StudySettings": "diswot.nas.api",
    "UserError": "diswot.errors",
    "build_network": "diswot.spaces.registry",
    "compare_runs": "diswot.runs.compared",
    "create_dataset": "diswot.data.registry",
    "create_space": "diswot.spaces.registry",
    "create_teacher": "diswot.models.registry",
    "distill": "diswot.training.distill",
    "inherit": "diswot.models.inheritance",
    "list_datasets": "diswot.data.registry",
    "list_proxies": "diswot.proxies.registry",
    "list_spaces": "diswot.spaces.registry",
    "list_teachers": "diswot.models.registry",
    "load_run": "diswot.runs.read",
    "observe": "diswot.observation.observe",
    "rank": "diswot.ranking.rank",
    "read_table": "diswot.ranking.tables.read",
    "score": "diswot.proxies.scorer",
    "search": "diswot.nas.api",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'diswot' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

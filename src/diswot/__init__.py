"""DisWOT: find the student network that a teacher can teach best, without training; then teach it.

Method: Dong, Li, Wei, "DisWOT: Student Architecture Search for Distillation WithOut Training",
CVPR 2023 (arXiv 2303.15678). Names are imported on first use, so that `import diswot` is quick.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

__version__ = "0.1.0"

_HOME = {
    "Budget": "diswot.budget",
    "Observation": "diswot.observe",
    "UserError": "diswot.errors",
    "distill": "diswot.distill",
    "observe": "diswot.observe",
    "rank": "diswot.rank",
    "score": "diswot.proxies",
    "search": "diswot.search",
}
_MODULES = ("data", "knowledge", "spaces", "tables", "teachers")

__all__ = ["__version__", *_HOME, *_MODULES]


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"diswot.{name}")
    raise AttributeError(f"module 'diswot' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    """Keeps `diswot.search` the function when the module of the same name is imported."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

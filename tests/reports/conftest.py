"""The folder of a small search."""

from __future__ import annotations

from run_folders import copy, folder

__all__ = ["copy", "folder"]

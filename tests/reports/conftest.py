"""The folder of a small search, for the tests of what a report reads of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from run_folders import searched


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return searched(tmp_path_factory.mktemp("search") / "run")


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "run"))

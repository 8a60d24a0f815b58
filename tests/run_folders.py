"""Run folders as the commands leave them, small and quick to make."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from diswot.cli import main
from diswot.runs.records import Run, SearchRecord

SMALL = "--data digits --image-size 8 --quiet"
SEARCH = f"search --teacher resnet20 --space s0 {SMALL} --batch-size 20 --max-params 0.3M"
TRAIN = f"{SMALL} --epochs 2 --batch-size 256 --precision fp32"


def call(line: str, *more: str | Path) -> None:
    main([*shlex.split(line), *map(str, more)])


def searched(folder: Path, more: str = "--sampler random --trials 8 --proxy params") -> Path:
    """A search of S0 with digits of 8 x 8 pixels."""
    call(f"{SEARCH} {more}", "--out", folder)
    return folder


def distilled(folder: Path) -> Path:
    """A search, its teacher trained, and its student distilled and trained alone."""
    teacher = folder / "teacher"
    call(f"distill --student resnet20 --teacher none {TRAIN}", "--out", teacher)
    weights = teacher / "student.safetensors"
    call(f"{SEARCH} --trials 6 --sampler random --proxy params", "--teacher-weights", weights,
         "--out", folder)  # fmt: skip
    recipe = "--epochs 2 --batch-size 256 --precision fp32 --quiet"
    call(f"distill {recipe}", folder)
    call(f"distill --teacher none {recipe}", folder)
    return folder


def search_of(run: Run) -> SearchRecord:
    """The search that was read of a folder."""
    assert run.search is not None
    return run.search


def edited(path: Path, change: Any) -> None:
    """A JSON file with `change` done to what it holds."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small search; not to be changed."""
    return searched(tmp_path_factory.mktemp("search") / "run")


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A copy of that folder."""
    return Path(shutil.copytree(folder, tmp_path / "run"))

"""The examples run as they are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "classes", "accuracy"), [("timm_teacher", 10, 70), ("own_folder", 10, 70)]
)
def test_example(tmp_path: Path, name: str, classes: int, accuracy: float) -> None:
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), "--out", str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    searched = json.loads((tmp_path / "search" / "run.json").read_text())["config"]
    trained = json.loads((tmp_path / "search" / "distilled" / "trained.json").read_text())["result"]
    assert searched["classes"] == classes and searched["seed"] == 0
    for name in ("image_size", "mean", "std"):
        assert trained[name] == searched[name]
    assert trained["test_accuracy"] > accuracy


@pytest.mark.slow
def test_demo(tmp_path: Path) -> None:
    """The start from the teacher is worth more than the spread of the seeds."""
    command = [sys.executable, str(EXAMPLES / "demo.py")]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    trained = tmp_path / "runs" / "demo" / "trained"

    def accuracies(name: str) -> list[float]:
        files = [trained / f"{name}-{seed}" / "trained.json" for seed in range(3)]
        return [json.loads(file.read_text())["result"]["test_accuracy"] for file in files]

    assert min(accuracies("found")) > max(accuracies("found-fresh") + accuracies("found-alone"))
    for line in ("teacher: ResNet-56", "found student, from its teacher, distilled", "searching: "):
        assert line in ran.stdout

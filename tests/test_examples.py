"""The examples run as they are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

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
    """All students keep the budget; the order holds where it is beyond the spread of the seeds."""
    command = [sys.executable, str(EXAMPLES / "demo.py")]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    out = tmp_path / "runs" / "demo"

    def results(name: str, count: int) -> list[dict[str, Any]]:
        files = [out / "trained" / f"{name}-{seed}" / "trained.json" for seed in range(count)]
        return [json.loads(file.read_text())["result"] for file in files]

    def accuracies(name: str, count: int) -> list[float]:
        return [each["test_accuracy"] for each in results(name, count)]

    hand = results("hand-1", 5)[0]
    for student in (results("found-1", 5)[0], *results("random-1", 5)):
        assert student["model_params"] <= hand["model_params"]
        assert student["macs"] <= hand["macs"]
    assert fmean(accuracies("found-1", 5)) > fmean(accuracies("random-1", 5))
    fresh = accuracies("fresh-4", 3) + accuracies("alone-4", 3)
    assert min(accuracies("found-4", 3)) > max(fresh)
    for line in ("teacher: ResNet-20", "found, fresh, distilled", "searching: "):
        assert line in ran.stdout

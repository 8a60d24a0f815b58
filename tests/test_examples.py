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

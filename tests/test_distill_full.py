"""The full study's script, at the size of a toy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TABLE = """blocks1,blocks2,blocks3,vanilla_acc,distilled_acc
1,1,1,60.2,61.9
1,1,3,67.3,69.0
1,3,1,63.0,64.0
3,1,1,62.0,63.5
"""


@pytest.fixture
def script(imported: Callable[[str], Any]) -> Any:
    return imported("distill_full")


@pytest.mark.slow
def test_from_the_teacher_to_the_rank_correlation(script: Any, tmp_path: Path) -> None:
    (tmp_path / "s0.csv").write_text(TABLE)
    line = "--data digits --image-size 8 --teacher resnet20 --epochs 1 --short-epochs 1"
    line += " --batch-size 512 --students 3"
    options = script.parsed(
        [*line.split(), "--table", str(tmp_path / "s0.csv"), "--out", str(tmp_path / "out")]
    )
    script.Study(options).run()
    figures = json.loads((tmp_path / "out" / "figures.json").read_text())
    names = {"teacher", "found", "resnet20", "resnet20-alone"}
    assert names < figures["trained"].keys() and len(figures["trained"]) == 7
    assert all(0 <= row["accuracy"] <= 100 for row in figures["trained"].values())
    assert figures["trained"]["found"]["params"] <= figures["trained"]["resnet20"]["params"]
    assert figures["rank"]["n"] == 3 and -1 <= figures["rank"]["kendall"] <= 1
    assert "processor" in figures["hardware"] and "torch" in figures["versions"]
    kept = (tmp_path / "out" / "teacher" / "history.jsonl").read_text()
    options.minutes = 0
    script.Study(options).run()  # nothing is trained again
    assert (tmp_path / "out" / "teacher" / "history.jsonl").read_text() == kept
    again = json.loads((tmp_path / "out" / "figures.json").read_text())
    assert again["trained"] == figures["trained"] and again["rank"] == figures["rank"]

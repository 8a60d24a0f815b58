"""`diswot compare`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from run_folders import copy, folder

from diswot.cli import main

__all__ = ["copy", "folder"]


def train(place: Path, epochs: int, accuracy: float) -> None:
    """Write the result of a distillation of the best student."""
    student = {"blocks1": 7, "blocks2": 3, "blocks3": 3}
    result: dict[str, object] = {
        "student": student,
        "teacher": "resnet20",
        "data": "digits",
        "epochs": epochs,
    }
    place.mkdir()
    result["test_accuracy"] = accuracy
    (place / "trained.json").write_text(json.dumps({"result": result}))


def test_two_runs(folder: Path, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(copy / "distilled", 2, 61.25)
    capsys.readouterr()
    main(["compare", str(copy), str(folder), "--json"])
    first, second = json.loads(capsys.readouterr().out)["runs"]
    assert [each["accuracy"] for each in first["accuracies"]] == [61.25]
    assert second["accuracies"] == [] and second["model_params"] == first["model_params"] == 291162

    main(["compare", str(copy), str(folder)])
    shown = capsys.readouterr().out
    assert "61.25" in shown and "300,000 params" in shown and "291K" in shown


def test_the_page_has_a_chart_for_each_number_of_epochs(copy: Path, tmp_path: Path) -> None:
    train(copy / "distilled", 2, 61.25)
    train(copy / "longer", 40, 90.0)
    page = tmp_path / "page.html"
    main(["compare", str(copy), "--quiet", "--out", str(page)])
    text = page.read_text()
    assert re.findall(r'data-chart="([^"]+)"', text) == [
        "2 epochs on digits",
        "40 epochs on digits",
    ]
    drawn = re.search(r'<script type="application/json" id="figures">(.*?)</script>', text)
    assert drawn is not None
    figures = json.loads(drawn[1])
    assert {name: figure["data"][0]["y"] for name, figure in figures.items()} == {
        "2 epochs on digits": [61.25],
        "40 epochs on digits": [90.0],
    }


def test_what_is_no_run_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["compare", str(folder), str(tmp_path)])
    assert stop.value.code == 2
    assert "holds no search, no training and no rank study" in capsys.readouterr().err

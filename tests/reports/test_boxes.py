"""Boxes in a report: what is drawn, and the average precisions."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from boxes import boxes
from PIL import Image
from run_folders import call
from torch import Tensor, nn

from diswot.data.dataset import Dataset, Split
from diswot.reports.predictions import compare_predictions
from diswot.reports.report import report

A, B, C = [4.0, 4, 24, 24], [40.0, 20, 70, 50], [80.0, 0, 100, 20]
TRUTH = torch.tensor([[*A, 0, 0], [*B, 1, 0], [*C, 1, 1], [-1.0] * 6])


class Finds(nn.Module):
    """A detector that finds the first box, and another one of a score that is not drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        boxes, labels = torch.tensor([A, B]), torch.tensor([1, 1])
        found = {"boxes": boxes, "labels": labels, "scores": torch.tensor([0.9, 0.2])}
        return [found for _ in images]


def made(count: int) -> Dataset:
    """Black images with boxes of class a and b, a difficult one, and one row of padding."""
    test = Split(
        torch.zeros(count, dtype=torch.int64),
        lambda indices: torch.zeros(len(indices), 3, 60, 120, dtype=torch.uint8),
        lambda indices: TRUTH.repeat(len(indices), 1, 1),
    )
    half = (0.5,) * 3
    return Dataset("made", ("a", "b", "c"), 60, half, half, None, test, width=120, task="detection")


def pixels(uri: str) -> np.ndarray:
    head, _, data = uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_precisions_and_pictures_by_hand() -> None:
    """All boxes of class a are found first; no box of class b is; class c never occurs."""
    found = compare_predictions(made(8), {"student": Finds()})
    rows = {row.name: row.percents["student"] for row in found.rows}
    assert rows == {
        "a": pytest.approx(100),
        "b": pytest.approx(0),
        "c": None,
        "mean": pytest.approx(50),
        "mean at an IoU of 0.5": pytest.approx(50),
    }
    assert [row.name for row in found.rows if row.mean] == ["mean", "mean at an IoU of 0.5"]
    assert (found.images, len(found.pictures), found.drawn) == (8, 6, "boxes")
    assert [entry.name for entry in found.legend] == ["a", "b", "crowd or difficult"]

    a, b, grey = ([int(e.colour[i : i + 2], 16) for i in (1, 3, 5)] for e in found.legend)
    truth, student = (pixels(found.pictures[0][name]) for name in ("truth", "student"))
    assert truth.shape == (120, 240, 3)  # of images of 60 x 120: a box is of twice the size
    for image, colours in ((truth, (a, b, grey)), (student, (a, [0] * 3, [0] * 3))):
        assert [image[int(2 * y1), int(2 * x1)].tolist() for x1, y1, *_ in (A, B, C)] == list(
            colours
        )
        assert image[47, 47].tolist() == a and image[48, 48].tolist() == [0] * 3
        assert image[30, 30].tolist() == [0] * 3


def test_without_a_network_the_true_boxes_are_drawn() -> None:
    found = compare_predictions(made(2), {})
    assert [list(each) for each in found.pictures] == [["truth"]] * 2
    assert found.rows == []


DETECTOR = """
import diswot

def teacher():
    params = {"blocks1": 1, "blocks2": 1, "blocks3": 1}
    heads = {"pyramid_width": 32, "head_width": 32, "head_depth": 1}
    return diswot.build_network(diswot.create_space("detector:s0+fcos", 2, 32), {**params, **heads})
"""


def test_the_page_and_the_files_of_a_detector(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = boxes(tmp_path / "boxes", train=16, test=4, size=(48, 32))
    own = tmp_path / "own.py"
    own.write_text(DETECTOR)
    run = tmp_path / "run"
    call(f"distill --student {own}:teacher --teacher none --data {data} --epochs 6 --batch-size 4 "
         "--precision fp32 --quiet --out", run)  # fmt: skip
    result = json.loads((run / "trained.json").read_text())["result"]
    assert list(result["by_class"]) == ["disc", "square", "mean", "mean at an IoU of 0.5"]
    assert result["by_class"]["mean"] == pytest.approx(result["test_map"])
    assert "train_accuracy" not in result and result["losses"] == {}

    page = report(run).read_text()
    body = page[page.index("<body>") : page.index('<script type="application/json"')]
    assert "What could not be shown" not in body
    assert f"<h1>{result['test_map']:.2f} % mAP on the test images</h1>" in page
    assert re.findall(r'alt="(boxes: [^"]*)"', body) == ["boxes: truth", "boxes: student"] * 4
    shown = re.findall(r"<td>([^<]*)</td><td>([^<]*)</td></tr>", body)
    known = {name: f"{value:.2f}" for name, value in result["by_class"].items()}
    assert [pair for pair in shown if pair[0] in known] == list(known.items())

    capsys.readouterr()
    call(f"evaluate --teacher {own}:teacher --data {data} --json --quiet "
         "--teacher-weights", run / "student.safetensors")  # fmt: skip
    tested = json.loads(capsys.readouterr().out)
    assert tested["by_class"] == pytest.approx(result["by_class"])
    call("export --quiet --json", run)
    card = (run / "export" / "README.md").read_text()
    assert json.loads(capsys.readouterr().out)["format"] == "onnx"
    assert "in 6 images" in card and "| task | `detection` |" in card

"""Masks in a report: their colours and IoUs by hand, and the page of a small run."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from run_folders import call
from shapes import shapes
from torch import Tensor, nn

from diswot.data.dataset import UNLABELLED, Dataset, Split
from diswot.data.registry import create_dataset
from diswot.reports import predictions
from diswot.reports.drawing import class_colours
from diswot.reports.masks import coloured
from diswot.reports.predictions import compare_predictions
from diswot.reports.report import report

TRUTH = torch.tensor([[0, 0, 1, 1], [0, UNLABELLED, 1, 1]])

TEACHER = """
from torch import nn

class Segmenter(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(),
                                  nn.Conv2d(8, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, images):
        logits = self.head(self.body(images))
        return {"out": nn.functional.interpolate(logits, images.shape[2:], mode="bilinear")}

def teacher():
    return Segmenter()
"""
SPACE = """
import diswot

def space(trial):
    return diswot.create_space("dense:s0+fpn", 3, 24)(trial)
"""


class Bright(nn.Module):
    """Class 1 where the red channel is above its mean, else class 0; never class 2."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        red = images[:, 0] * self.scale
        return {"out": torch.stack((-red, red, torch.full_like(red, -100.0)), 1)}


def bright_data(count: int) -> Dataset:
    """Images of two rows and four columns whose first column alone is dark."""
    image = torch.full((3, 2, 4), 255, dtype=torch.uint8)
    image[:, :, 0] = 0
    test = Split(
        torch.zeros(count, dtype=torch.int64),
        lambda indices: image.repeat(len(indices), 1, 1, 1),
        lambda indices: TRUTH.repeat(len(indices), 1, 1),
    )
    half = (0.5,) * 3
    return Dataset("made", ("a", "b", "c"), 2, half, half, None, test, width=4, task="segmentation")


def pixels(uri: str) -> np.ndarray:
    head, _, data = uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_iou_and_pictures_by_hand() -> None:
    """Predicted are 2 pixels of class a, all true; of class b 5 that count, of which 4 are true."""
    found = compare_predictions(bright_data(30), {"student": Bright()})
    rows = {row.name: row.percents["student"] for row in found.rows}
    assert rows == {
        "a": pytest.approx(200 / 3),
        "b": pytest.approx(80.0),
        "c": None,
        "mean": pytest.approx((200 / 3 + 80) / 2),
    }
    assert (found.images, len(found.pictures)) == (30, 6)
    assert [entry.name for entry in found.legend] == ["a", "b", "void"]

    a, b, _ = ([int(entry.colour[i : i + 2], 16) for i in (1, 3, 5)] for entry in found.legend)
    truth = pixels(found.pictures[0]["truth"])
    assert truth.shape == (48, 96, 3)
    cells = truth[12::24, 12::24]
    assert cells[0].tolist() == [a, a, b, b] and cells[1, 0].tolist() == a
    assert cells[1, 1].tolist() == [128] * 3
    student = pixels(found.pictures[0]["student"])[12::24, 12::24]
    assert student.tolist() == [[a, b, b, b]] * 2


def test_costly_networks_predict_fewer_images(monkeypatch: pytest.MonkeyPatch) -> None:
    class Costly(Bright):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 3, 1)  # 9 multiply-adds at each of 8 positions

        def forward(self, images: Tensor) -> dict[str, Tensor]:
            return super().forward(images + 0 * self.layer(images))

    monkeypatch.setattr(predictions, "MAX_MACS", 3 * 72)
    found = compare_predictions(bright_data(30), {"student": Costly()})
    assert (found.images, len(found.pictures)) == (3, 3)


def test_without_a_network_the_true_masks_are_drawn() -> None:
    found = compare_predictions(bright_data(2), {})
    assert [list(each) for each in found.pictures] == [["image", "truth"]] * 2
    assert found.rows == []


def test_colours_differ_and_none_is_grey() -> None:
    colours = class_colours(21)
    assert len({tuple(round(255 * value) for value in each) for each in colours}) == 21
    assert min(max(each) - min(each) for each in colours) > 0.3
    drawn = coloured(torch.tensor([[UNLABELLED, 2]]), colours)
    assert drawn[:, 0, 0].tolist() == [0.5] * 3
    assert drawn[:, 0, 1].tolist() == pytest.approx(colours[2])


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search in a space of the user for images with masks, and the training of its student."""
    place = tmp_path_factory.mktemp("dense")
    images = shapes(place / "shapes", train=20, test=6, size=(32, 24))
    own = place / "own.py"
    own.write_text(TEACHER + SPACE)
    how = "--epochs 1 --batch-size 10 --precision fp32 --quiet"
    call(f"distill --student {own}:teacher --teacher none --data {images} {how}", "--out",
         place / "teacher")  # fmt: skip
    return place


def words(page: str) -> str:
    body = page[page.index("<body>") : page.index('<script type="application/json"')]
    return " ".join(re.sub(r"<[^>]*>", " ", body).split())


def card(page: str, name: str) -> str:
    found = re.search(rf'<div class="card" id="{name}">.*?</div></div>', page, re.DOTALL)
    assert found is not None
    return found.group()


def searched(place: Path, space: str, out: str) -> Path:
    images = f"--data {place / 'shapes'} --batch-size 8 --proxy params --sampler random --trials 3"
    weights = place / "teacher" / "student.safetensors"
    call(f"search --teacher {place / 'own.py'}:teacher --teacher-weights {weights} "
         f"--space {space} {images} --max-params 0.5M --quiet --out {place / out}")  # fmt: skip
    return place / out


def test_the_page_of_a_segmentation_run(dense: Path) -> None:
    folder = searched(dense, "dense:s0+fpn", "run")
    call("distill --epochs 1 --batch-size 10 --precision fp32 --quiet", folder)
    result = json.loads((folder / "distilled" / "trained.json").read_text())["result"]
    taught = json.loads((dense / "teacher" / "trained.json").read_text())["result"]
    page = report(folder).read_text()
    text = words(page)
    assert "What could not be shown" not in text
    assert f", {result['test_miou']:.2f} % mIoU</h1>" in page
    assert "test mIoU %" in text and "test mIoU, %" in text and "test accuracy" not in text
    assert "<h2>Test mIoU</h2>" in page and "Class activation maps" not in text
    figures = json.loads(re.findall(r'id="figures">(.*?)</script>', page)[0])
    curve = figures["results"]
    assert curve["layout"]["yaxis"]["title"]["text"] == "test mIoU, %"
    assert curve["data"][0]["y"] == [result["test_miou"]]
    assert set(re.findall(r'data-chart="([^"]*)"', page)) == set(figures)

    shown = re.findall(r'alt="([^"]*)"', card(page, "predictions"))
    assert shown == ["image", "masks: truth", "masks: teacher", "masks: student"] * 6
    rows = re.findall(r"<td>([^<]*)</td>", card(page, "classes"))
    names = [*create_dataset(str(dense / "shapes")).classes, "mean"]
    assert rows[::3] == names == ["ground", "disc", "square", "mean"]
    assert rows[-2:] == [f"{taught['test_miou']:.2f}", f"{result['test_miou']:.2f}"]
    assert "on 6 test images" in words(page)
    macs = f"{result['macs'] / 1e6:.3g}M"
    assert macs in text[: text.index("Search Features")], "of images of 32 x 24 pixels"

    alone = report(folder / "distilled", dense / "alone.html").read_text()
    assert f"<h1>{result['test_miou']:.2f} % mIoU on the test images</h1>" in alone
    assert re.findall(r"<td>([^<]*)</td>", card(alone, "classes")) == rows


def test_the_page_of_an_untrained_student_of_a_users_space(dense: Path) -> None:
    folder = searched(dense, f"{dense / 'own.py'}:space", "own")
    page = report(folder).read_text()
    assert "What could not be shown" not in words(page)
    shown = re.findall(r'alt="([^"]*)"', card(page, "predictions"))
    assert shown == ["image", "masks: truth", "masks: teacher"] * 6

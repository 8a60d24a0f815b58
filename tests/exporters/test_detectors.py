"""Export of detectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from detectors import SIZE, faster_rcnn, fcos, ssd
from torch import Tensor, nn

from diswot.errors import ExportFailed, UserError
from diswot.exporters import detectors as module
from diswot.exporters.detectors import difference
from diswot.exporters.export import export
from diswot.exporters.model_card import StudentDescription


def description() -> StudentDescription:
    return StudentDescription(
        name="squares",
        image_shape=(3, *SIZE),
        classes=("red", "green", "blue"),
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        params={},
        facts={},
        training={"test_map": 41.239, "test_map50": 70.5, "epochs": 1},
        task="detection",
        samples=torch.randn(2, 3, *SIZE),
    )


def finding() -> nn.Module:
    """Return an untrained FCOS that takes any score for a box."""
    return fcos(score_thresh=0.0)


@pytest.mark.parametrize("build", [finding, ssd, faster_rcnn])
def test_the_file_finds_the_boxes(build: Callable[[], nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    *_, card = export(build(), tmp_path, "onnx", description())
    text = card.read_text()
    assert "boxes and scores in 5 images are within" in text
    assert "| task | `detection` |" in text and "labels, from 1: `red`, `green`, `blue`" in text
    assert "| test mAP, % | `41.24` |" in text and "IoU of 0.5, % | `70.50` |" in text
    assert "| losses | `the detector's own` |" in text and "float32, 1 x 3 x 64 x 96" in text


def test_a_file_of_other_boxes_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @torch.no_grad()
    def another(image: Tensor) -> tuple[Tensor, ...]:
        torch.manual_seed(0)
        boxes, labels, scores = module.OneImage(ssd()).eval()(image)
        return boxes + 1, labels, scores

    monkeypatch.setattr(module, "onnx_function", lambda path, outputs: another)
    torch.manual_seed(0)
    with pytest.raises(ExportFailed, match=r"differs from the network by 0\.01"):
        export(ssd(), tmp_path, "onnx", replace(description(), samples=None))
    assert list(tmp_path.iterdir()) == []


def test_a_detector_that_finds_nothing(tmp_path: Path) -> None:
    *_, card = export(fcos(score_thresh=1.0), tmp_path, "onnx", description())
    assert "like the network it finds no box in 5 images." in card.read_text()


@pytest.mark.parametrize("kind", ["torch", "safetensors"])
def test_other_formats_are_refused(kind: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a detector is written as onnx alone"):
        export(ssd(), tmp_path, kind, description())


def found(*rows: tuple[float, int, float]) -> tuple[Tensor, ...]:
    """Return squares of 10 pixels at some places, with labels and scores."""
    places, labels, scores = zip(*rows, strict=True) if rows else ((), (), ())
    corner = torch.tensor(places).view(-1, 1)
    return corner + torch.tensor([0.0, 0, 10, 10]), torch.tensor(labels), torch.tensor(scores)


def test_differences_by_hand() -> None:
    one, two = (0.0, 1, 0.9), (50.0, 2, 0.8)
    assert difference(found(one, two), found(two, one), 100) == 0
    assert difference(found(), found(), 100) == 0
    assert difference(found(one, two), found(one, (52.0, 2, 0.8)), 100) == pytest.approx(0.02)
    assert difference(found(one, two), found(one, (50.0, 2, 0.7)), 100) == pytest.approx(0.1)
    assert difference(found(one, two), found(one, (50.0, 1, 0.8)), 100) == float("inf")
    assert difference(found(one, two), found(one), 100) == float("inf")
    assert difference(found(one, two), found(one, one), 100) == float("inf")
    assert difference(found(one), found(), 100) == float("inf")


def test_one_of_50_boxes_may_have_no_counterpart() -> None:
    many = [(3.0 * i, 1, i / 100) for i in range(100)]
    assert difference(found(*many), found(*many[2:]), 100) == 0
    assert difference(found(*many), found(*many[5:]), 100) > 0.01


def test_boxes_of_equal_scores_are_arbitrary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Constant(nn.Module):
        def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
            boxes, labels, scores = found(*((3.0 * i, 1, 0.5) for i in range(10)))
            return [{"boxes": boxes, "labels": labels, "scores": scores}]

    other = found(*((3.0 * i + 1, 1, 0.5) for i in range(10)))
    monkeypatch.setattr(module, "onnx_function", lambda path, outputs: lambda image: other)
    text = module.check_detector(Constant(), tmp_path, description())
    assert text.startswith("Not checked: many scores of the network are equal")
    assert module.tied(torch.tensor([0.1, 0.1, 0.5])) and not module.tied(torch.rand(30))
    assert not module.tied(torch.tensor([0.5]))

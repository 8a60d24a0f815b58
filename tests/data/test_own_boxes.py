"""A user's own data sets with boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from data.drawn_boxes import loaded, rows
from PIL import Image
from torch.utils.data import Subset
from torchvision.tv_tensors import BoundingBoxes

from diswot.data.own import as_dataset
from diswot.errors import UserError


class Own:
    """Images of 40 x 30 pixels with the given targets."""

    def __init__(self, *targets: Any, image: Any = None, **more: Any) -> None:
        self.targets_, self.image = targets, image
        self.__dict__.update(more)

    def __len__(self) -> int:
        return len(self.targets_)

    def __getitem__(self, index: int) -> Any:
        return self.image or Image.new("RGB", (40, 30)), self.targets_[index]


def target(*boxes: list[float], labels: list[int] | None = None, **more: Any) -> dict[str, Any]:
    return {
        "boxes": torch.tensor(boxes).reshape(-1, 4),
        "labels": torch.tensor(labels or [1] * len(boxes), dtype=torch.int64),
        **more,
    }


ONE = target([1.0, 2, 11, 12])


def test_targets_of_torchvision() -> None:
    more = {"iscrowd": torch.tensor([0, 1]), "area": torch.tensor([1.0, 2]), "image_id": 7}
    two = target([1, 2, 11, 12], [0, 0, 5, 5.5], labels=[3, 1], **more)
    data = as_dataset((Own(two, target()), Own(ONE)), name="mine")
    assert data.task == "detection" and data.name == "mine" and data.classes == ("1", "2", "3")
    assert data.train is not None and data.test is not None
    assert rows(data.train) == [[[1, 2, 11, 12, 2, 0], [0, 0, 5, 5.5, 0, 1]], []]
    assert rows(data.test) == [[[1, 2, 11, 12, 0, 0]]]
    assert data.train.read([0]).shape == (1, 3, 30, 40) and data.image_shape == (3, 30, 40)


@pytest.mark.parametrize("names", [["ant", "bee"], ["__background__", "ant", "bee"]])
def test_names_and_a_held_out_part(names: list[str]) -> None:
    data = as_dataset(Subset(Own(*[ONE] * 12, classes=names), range(10)), img_size=15)
    assert data.classes == ("ant", "bee") and data.image_shape == (3, 15, 20)
    assert data.train is not None and data.test is not None
    assert (len(data.train), len(data.test)) == (8, 2)
    assert rows(data.test)[0] == [[0.5, 1, 5.5, 6, 0, 0]]


def test_other_formats_of_boxes() -> None:
    boxes = BoundingBoxes([[1.0, 2, 10, 20]], format="XYWH", canvas_size=(30, 40))
    data = as_dataset((Own(target(boxes=boxes, labels=[1])),) * 2)
    assert data.train is not None
    assert rows(data.train) == [[[1, 2, 11, 22, 0, 0]]]


def test_a_function(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import numpy, torch\n\nclass Drawn:\n    classes = ['ant']\n"
        "    def __len__(self): return 5\n"
        "    def __getitem__(self, i):\n        image = numpy.zeros((30, 40, 3), dtype='uint8')\n"
        "        boxes = torch.tensor([[1.0, 2.0, 11.0, 12.0]])\n"
        "        return image, {'boxes': boxes, 'labels': torch.tensor([1])}\n\n"
        "def drawn(): return Drawn(), Drawn()\n"
    )
    data, train, _ = loaded(tmp_path / "mine.py:drawn")
    assert data.classes == ("ant",) and rows(train)[4] == [[1, 2, 11, 12, 0, 0]]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (target([1, 2, 3, 4], labels=[0]), "image 1 has the label 0; labels count from 1"),
        ({"boxes": torch.zeros(1, 4)}, "image 1 has no target with boxes and labels"),
        (3, "image 1 has no target with boxes and labels"),
        ({"boxes": torch.zeros(1, 3), "labels": [1]}, "image 1: boxes must be n x 4"),
        ({"boxes": torch.zeros(2, 4), "labels": [1]}, "image 1: boxes must be n x 4"),
        ({"boxes": "all", "labels": [1]}, "image 1: boxes must be n x 4"),
        (target([1, 2, 3, 4], labels=[1], iscrowd=[0, 1]), "image 1: boxes must be n x 4"),
    ],
)
def test_a_wrong_target_is_refused(wrong: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        as_dataset((Own(ONE, wrong), Own(ONE)), name="mine")

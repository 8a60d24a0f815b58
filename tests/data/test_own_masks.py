"""Data sets of a user, and of the hub, with masks."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from torchvision.tv_tensors import Mask

from diswot.data.own import as_dataset
from diswot.data.registry import create_dataset
from diswot.errors import UserError

INDICES = np.array([[0, 1, 2, 255], [2, 2, 1, 0], [0, 0, 0, 1]], dtype=np.uint8)
EXPECTED = [[0, 1, 2, -1], [2, 2, 1, 0], [0, 0, 0, 1]]


def paletted() -> Image.Image:
    mask = Image.fromarray(INDICES).convert("L")
    mask.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0])
    return mask


class Own:
    """Images of 4 x 3 pixels with one mask; the first channel counts the images."""

    def __init__(self, mask: object, count: int = 10, **more: Any) -> None:
        self.mask, self.count = mask, count
        self.__dict__.update(more)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return Image.new("RGB", (4, 3), (index, 0, 0)), self.mask


def targets(data: Any) -> list[Any]:
    assert data.task == "segmentation" and data.train is not None
    found: Tensor = data.train.targets([0])[0]
    assert found.dtype == torch.int64
    return found.tolist()


FORMS = {
    "array": INDICES,
    "array of int64 with -1": np.where(INDICES == 255, -1, INDICES.astype(np.int64)),
    "tensor": torch.from_numpy(INDICES),
    "tensor of one channel": torch.from_numpy(INDICES)[None].long(),
    "tv_tensor": Mask(INDICES),
    "grey image": Image.fromarray(INDICES),
    "palette": paletted(),
}


@pytest.mark.parametrize("form", FORMS)
def test_masks_of_any_form(form: str) -> None:
    data = as_dataset(Own(FORMS[form]))

    assert data.classes == ("class 0", "class 1", "class 2")
    assert data.image_shape == (3, 3, 4)
    assert targets(data) == EXPECTED


def test_a_held_out_part_names_and_sizes() -> None:
    subset = Subset(Own(INDICES, 20, classes=["ground", "disc", "square"]), range(10))
    data = as_dataset(subset, img_size=6)

    assert data.classes == ("ground", "disc", "square") and data.image_shape == (3, 6, 8)
    assert data.train is not None and data.test is not None
    assert (len(data.train), len(data.test)) == (8, 2)
    reds = [
        set(split.read(range(len(split)))[:, 0, 0, 0].tolist()) for split in (data.train, data.test)
    ]
    assert reds[0] | reds[1] == set(range(10)) and not reds[0] & reds[1]
    assert targets(data) == np.repeat(np.repeat(EXPECTED, 2, 0), 2, 1).tolist()


def test_a_pair_of_loaders_and_a_worker() -> None:
    pair = tuple(DataLoader(Own(INDICES, count)) for count in (5, 3))
    data = pickle.loads(pickle.dumps(as_dataset(pair, name="mine")))

    assert (len(data.train), len(data.test), data.name) == (5, 3, "mine")
    assert targets(data) == EXPECTED


@pytest.mark.parametrize(
    ("mask", "part"),
    [
        (np.zeros((3, 4, 3), np.uint8), r"image 0: a mask must be H x W class indices, not \(3, 4"),
        (np.zeros((3, 4), np.float32), "a mask must hold whole numbers, not float32"),
        (np.full((3, 4), 300), "a mask must hold numbers up to 255, not 300"),
        (np.zeros((3, 4), np.uint8), "the masks of Own have one class"),
    ],
)
def test_what_is_no_mask(mask: object, part: str) -> None:
    with pytest.raises(UserError, match=part):
        as_dataset(Own(mask))


def test_a_mask_of_another_shape_and_a_value_of_no_class() -> None:
    flat = as_dataset(Own(np.eye(3, 9, dtype=np.uint8)))
    with pytest.raises(UserError, match="image 0 has 9 x 3 pixels, its image 4 x 3"):
        targets(flat)
    few = as_dataset(Own(INDICES + 10, classes=["one", "two"]))
    with pytest.raises(UserError, match="has the value 12, and the classes are 0 to 1"):
        targets(few)


def test_a_function_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "def pairs():\n"
        "    image, mask = torch.zeros(3, 6, 8), torch.eye(6, 8).long()\n"
        "    return torch.utils.data.TensorDataset(image.expand(5, -1, -1, -1),"
        " mask.expand(5, -1, -1))\n"
    )
    data = create_dataset(f"{tmp_path}/mine.py:pairs")

    assert targets(data) == torch.eye(6, 8).long().tolist()


Load = Callable[..., str]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Lets the library load tables of images and masks; None is a missing mask."""
    datasets = pytest.importorskip("datasets", reason="needs the extra hf")

    def load(
        column: str, image: str = "image", names: Sequence[str] = (), **splits: list[Any]
    ) -> str:
        number = datasets.Sequence(datasets.ClassLabel(names=list(names)))
        features = {
            image: datasets.Image(),
            "id": number if names else datasets.Value("int64"),
            column: datasets.Image(),
        }
        tables = {
            split: datasets.Dataset.from_dict(
                {
                    image: [Image.new("RGB", (4, 3))] * len(cells),
                    "id": [[0, 1]] * len(cells) if names else list(range(len(cells))),
                    column: cells,
                },
                features=datasets.Features(features),
            )
            for split, cells in splits.items()
        }
        made = datasets.DatasetDict(tables)
        monkeypatch.setattr(
            datasets, "load_dataset", lambda path, config, split: made[split] if split else made
        )
        return "hf:someone/shapes"

    return load


@pytest.mark.parametrize(
    ("column", "image"), [("mask", "image"), ("annotation", "image"), ("label", "pixel_values")]
)
def test_a_table_of_the_hub(hub: Load, column: str, image: str) -> None:
    cells = [Image.fromarray(INDICES)]
    data = create_dataset(hub(column, image, train=cells * 6, validation=cells * 2))

    assert targets(data) == EXPECTED
    assert data.test is not None and len(data.test) == 2
    assert data.test.targets([1])[0].tolist() == EXPECTED
    assert data.train is not None and data.train.read([0, 1]).shape == (2, 3, 3, 4)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["ground", "disc", "square", "star"], ("ground", "disc", "square", "star")),
        (["day", "night"], ("class 0", "class 1", "class 2")),  # too few: of something else
    ],
)
def test_names_of_classes_in_a_table_of_the_hub(
    hub: Load, names: list[str], expected: tuple[str, ...]
) -> None:
    cells = [Image.fromarray(INDICES)]
    data = create_dataset(hub("mask", names=names, train=cells * 6, validation=cells * 2))

    assert data.classes == expected and targets(data) == EXPECTED


def test_a_test_split_without_masks_is_no_test_split(hub: Load) -> None:
    cells = [Image.fromarray(INDICES)]
    data = create_dataset(hub("mask", train=cells * 6, validation=cells, test=[None, None]))
    assert data.test is not None and len(data.test) == 1
    alone = create_dataset(hub("mask", train=cells * 10) + ":train")
    assert alone.test is not None and len(alone.test) == 2

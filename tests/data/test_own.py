from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset

from diswot.data.dataset import Dataset, hold_out
from diswot.data.decode import IMAGENET_NORMALISATION
from diswot.data.own import as_dataset, is_data
from diswot.data.registry import create_dataset
from diswot.errors import UserError

N, K, SIDE = 40, 4, 6
IMAGES = torch.randint(0, 256, (N, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0))
IMAGES = IMAGES.to(torch.uint8)
LABELS = torch.arange(N) % K


class Torchvision:
    """As torchvision's data sets are: names of classes, a list of labels, and transforms."""

    classes = ("ant", "bee", "cat", "dog")

    def __init__(self, transform: Any = None) -> None:
        self.transform = transform
        self.targets = LABELS.tolist()
        self.read: list[int] = []

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> tuple[Any, int]:
        self.read.append(index)
        image: Any = IMAGES[index]
        return image if self.transform is None else self.transform(image), self.targets[index]


class Labelled:
    """Has the given labels in turn, and does not list them."""

    def __init__(self, labels: list[Any]) -> None:
        self.labels = labels

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        return IMAGES[index], self.labels[index % len(self.labels)]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(())


def images_of(split: Any) -> Tensor:
    read: Tensor = split.read(range(len(split)))
    return read


def check(data: Dataset) -> None:
    """The held-out fifth is that of any other data set, and no image is lost or altered."""
    kept, held = hold_out(LABELS.numpy())
    assert data.train is not None and data.test is not None and data.size == SIDE
    for split, part in ((data.train, kept), (data.test, held)):
        assert torch.equal(split.labels, LABELS[part])
        assert torch.equal(images_of(split), IMAGES[part])


def test_a_map_data_set() -> None:
    own = Torchvision()
    data = as_dataset(own)
    assert set(own.read) <= set(range(4))  # its labels are listed, so no other image is read
    check(data)
    assert (data.name, data.classes, data.mean) == (
        "Torchvision",
        own.classes,
        IMAGENET_NORMALISATION[0],
    )


@pytest.mark.parametrize(
    "given",
    [
        TensorDataset(IMAGES, LABELS),
        TensorDataset(IMAGES / 255, LABELS),
        DataLoader(TensorDataset(IMAGES, LABELS), batch_size=7, shuffle=True),
        Subset(TensorDataset(IMAGES, LABELS), range(N)),
    ],
)
def test_data_sets_without_a_list_of_labels(given: Any) -> None:
    data = as_dataset(given)
    check(data)
    assert data.classes == ("0", "1", "2", "3")


@pytest.mark.parametrize("labels", [[3, 70, 500, 9999], [10_000_001, 10_000_004], [1, 2, 3, 4]])
def test_labels_that_are_ids_are_the_classes(labels: list[int]) -> None:
    data = as_dataset(Labelled(labels))
    assert data.train is not None and data.classes == tuple(map(str, labels))
    kept, _ = hold_out(np.arange(N) % len(labels))
    assert data.train.labels.tolist() == (kept % len(labels)).tolist()


def test_labels_that_count_in_the_listed_classes() -> None:
    listed = Labelled([0, 3])
    listed.classes = ("ant", "bee", "cat", "dog")  # type: ignore[attr-defined]
    data = as_dataset((listed, listed))
    assert data.train is not None and data.classes == ("ant", "bee", "cat", "dog")
    assert data.train.labels.tolist() == [0, 3] * (N // 2)


def test_a_part_of_a_data_set() -> None:
    some = [*range(0, N, 2), 1]
    data = as_dataset((Subset(Torchvision(), some), Torchvision()), name="mine")
    assert data.train is not None and data.test is not None
    assert torch.equal(data.train.labels, LABELS[some]) and len(data.test) == N
    assert torch.equal(images_of(data.train), IMAGES[some])
    assert torch.equal(images_of(data.test), IMAGES)
    assert data.name == "mine" and data.classes == Torchvision.classes


class Normalize:
    mean, std = (0.4, 0.5, 0.6), (0.1, 0.2, 0.3)

    def __call__(self, image: Tensor) -> Tensor:
        centre, spread = (torch.tensor(each).view(3, 1, 1) for each in (self.mean, self.std))
        return (image / 255 - centre) / spread


def test_a_normalised_batch_is_that_of_the_users_transforms() -> None:
    data = as_dataset(Torchvision(Normalize()))
    check(data)
    assert (data.mean, data.std) == (Normalize.mean, Normalize.std)
    assert data.train is not None
    wanted = torch.stack([Normalize()(image) for image in images_of(data.train)])
    torch.testing.assert_close(data.normalise(images_of(data.train)), wanted)


def test_the_size_of_the_images() -> None:
    wide = TensorDataset(IMAGES.repeat_interleave(2, 2), LABELS)
    assert as_dataset(wide).size == SIDE
    data = as_dataset(TensorDataset(torch.full((N, 3, 5, 8), 70).byte(), LABELS), img_size=12)
    assert data.size == 12 and data.test is not None
    assert images_of(data.test).shape == (8, 3, 12, 12) and set(
        images_of(data.test).unique().tolist()
    ) == {70}


def test_random_transforms_are_noticed(caplog: pytest.LogCaptureFixture) -> None:
    random = np.random.default_rng(0)
    with caplog.at_level(logging.WARNING, "diswot"):
        as_dataset(Torchvision())
        assert not caplog.records
        as_dataset(Torchvision(lambda image: image / 255 * float(random.random())))
    assert "an image differs when it is read again; leave random transforms out" in caplog.text


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (3, "the data must be a map data set of .*, not a int"),
        ("digits", "the data must be a map data set of .*, not a str"),
        ((IMAGES, LABELS), "the data must be a map data set of .*, not a tuple"),
        (DataLoader(Stream()), "Stream has no length: name a map data set"),
        (TensorDataset(IMAGES[:0], LABELS[:0]), "TensorDataset has no images"),
        (TensorDataset(IMAGES), r"must return pairs \(image, label\), not a tuple"),
        (TensorDataset(IMAGES, LABELS - 1), "labels must be whole numbers from 0"),
        (TensorDataset(IMAGES, LABELS / 2), "labels must be whole numbers from 0"),
        (TensorDataset(IMAGES, torch.eye(N)), r"from 0, and image 0 has tensor\(\[1., 0., "),
        (Labelled([[0], [1, 2]]), r"whole numbers from 0, and image 0 has \[0\]$"),
        (Labelled([1, "ant"]), "whole numbers from 0, and image 1 has 'ant'$"),
        (Labelled([1, 2**63]), "whole numbers from 0, and image 1 has 9223372036854775808$"),
        (Labelled([5]), "Labelled has one class, 5, and needs at least 2"),
        (TensorDataset(IMAGES.float(), LABELS), "TensorDataset: image 0: its values are"),
        (Torchvision(lambda image: 1 / 0), "Torchvision: image 0: ZeroDivisionError"),
        (TensorDataset(IMAGES[:4], LABELS[:4]), "too few images to hold out"),
    ],
)
def test_what_is_no_data(given: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        as_dataset(given)


def test_is_data() -> None:
    own = Torchvision()
    assert all(map(is_data, (own, DataLoader(own), (own, own), create_dataset("noise"))))
    assert not any(map(is_data, (IMAGES, [own], "digits", {}, (IMAGES, LABELS), ((1, 2), own))))


MINE = """
import torch
from torch.utils.data import TensorDataset
from diswot import create_dataset

def images(img_size=5, num_classes=3):
    torch.manual_seed(0)
    sides = (12, 3, img_size, img_size)
    return TensorDataset(torch.randint(0, 256, sides).byte(), torch.arange(12) % num_classes)

def pair():
    return images(num_classes=2), images()

def ready():
    return create_dataset("digits", img_size=8)

def number(): return 3
def raising(): return 1 / 0
"""


@pytest.fixture
def mine(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(MINE)
    return str(tmp_path / "mine.py")


def test_functions_of_a_file(mine: str) -> None:
    data = create_dataset(f"{mine}:images")
    assert (data.name, data.size, len(data.classes)) == (f"{mine}:images", 5, 3)
    data = create_dataset(f"{mine}:images", img_size=8, num_classes=2)
    assert (data.size, len(data.classes)) == (8, 2)
    data = create_dataset(f"{mine}:pair")
    assert data.train is not None and data.test is not None
    assert (len(data.train), len(data.test), len(data.classes)) == (12, 12, 3)
    data = create_dataset(f"{mine}:ready")
    assert (data.name, data.size, len(data.classes)) == (f"{mine}:ready", 8, 10)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("number", r"mine.py:number must be a map data set of .*, not a int"),
        ("raising", r"mine.py:raising fails: ZeroDivisionError: division by zero \(line 18\)"),
        ("imags", r"unknown function in .*mine.py 'imags'; did you mean images"),
    ],
)
def test_functions_that_return_no_data(mine: str, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        create_dataset(f"{mine}:{name}")


def test_a_data_set_of_another_size(mine: str) -> None:
    with pytest.raises(UserError, match=r"mine.py:ready has 8 x 8 pixels, not 16"):
        create_dataset(f"{mine}:ready", img_size=16)

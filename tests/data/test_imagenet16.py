"""Downsampled ImageNet in its published layout, as NumPy and pickle write it."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diswot.data.dataset import whole
from diswot.data.imagenet16 import load
from diswot.data.registry import create_dataset
from diswot.errors import UserError

Rows = np.ndarray[Any, Any]


def write(root: Path, classes: int = 125, side: int = 16, protocol: int = 2) -> dict[str, Any]:
    """Two batches for training and one for validation; every class once a batch."""
    root.mkdir(parents=True, exist_ok=True)
    made = {}
    for number, name in enumerate(("train_data_batch_1", "train_data_batch_2", "val_data")):
        random = np.random.default_rng(number)
        rows = random.integers(0, 256, (classes, 3 * side * side), dtype=np.uint8)
        labels = [int(label) for label in random.permutation(classes) + 1]
        content = {"data": rows, "labels": labels, "mean": rows.mean(0)}
        (root / name).write_bytes(pickle.dumps(content, protocol=protocol))
        made[name] = content
    return made


@pytest.mark.parametrize("inner", ["", "ImageNet16"])
def test_first_120_classes(tmp_path: Path, inner: str) -> None:
    made = write(tmp_path / inner)
    found = create_dataset("imagenet16-120", root=tmp_path)
    assert found.train is not None and found.test is not None
    assert (len(found.train), len(found.test)) == (240, 120)
    assert len(found.classes) == 120 and found.size == 16
    expected = []
    for name in ("train_data_batch_1", "train_data_batch_2"):
        for row, label in zip(made[name]["data"], made[name]["labels"], strict=True):
            if label <= 120:
                red, green, blue = row[:256], row[256:512], row[512:]
                planes = [plane.reshape(16, 16) for plane in (red, green, blue)]
                expected.append((label - 1, torch.from_numpy(np.stack(planes))))
    assert found.train.labels.tolist() == [label for label, _ in expected]
    assert torch.equal(whole(found.train)[0], torch.stack([image for _, image in expected]))
    assert found.mean == pytest.approx((0.4811, 0.4575, 0.4079), abs=1e-4)


@pytest.mark.parametrize("protocol", [0, 2, 3, 4, 5])
@pytest.mark.parametrize("classes", [None, 7])
def test_a_folder(tmp_path: Path, protocol: int, classes: int | None) -> None:
    write(tmp_path, 9, side=8, protocol=protocol)
    found = create_dataset(str(tmp_path), num_classes=classes, img_size=4)
    assert len(found.classes) == (classes or 9) and found.image_shape == (3, 4, 4)
    assert found.train is not None and found.train.read([0, 3]).shape == (2, 3, 4, 4)


def test_as_python_2_wrote(tmp_path: Path) -> None:
    """Strings of bytes, which Python 3 reads as latin-1."""
    rows = np.arange(24, dtype=np.uint8).reshape(2, 12)
    head = b"(dS'labels'\n(lI1\naI2\nasS'data'\ncnumpy.core.multiarray\n_reconstruct\n"
    array = b"(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I2\nI12\ntcnumpy\ndtype\n(S'u1'\nI0\nI1\ntR"
    state = b"(I3\nS'|'\nNNNI-1\nI-1\nI0\ntbI00\nS" + repr(rows.tobytes()).encode()[1:] + b"\ntbs."
    (tmp_path / "val_data").write_bytes(head + array + state)
    assert np.array_equal(load(tmp_path / "val_data")["data"], rows)


def test_what_a_pickle_names_is_not_called(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "trap"),)

    write(tmp_path)
    (tmp_path / "val_data").write_bytes(pickle.dumps({"data": Bomb(), "labels": [1]}))
    with pytest.raises(UserError, match=r"val_data asks for posix\.mkdir; only arrays"):
        create_dataset(str(tmp_path))
    objects = {"data": np.array([Bomb()], dtype=object), "labels": [1]}
    (tmp_path / "val_data").write_bytes(pickle.dumps(objects))
    with pytest.raises(UserError, match="only arrays"):
        create_dataset(str(tmp_path))
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "val_data is no pickle of plain values and arrays"),
        (b"\x80\x04garbage", "is no pickle of plain values and arrays"),
        (pickle.dumps([1]), "is no pickle of a dict"),
        (pickle.dumps({"data": 1, "labels": [1]}), "is not laid out as downsampled ImageNet"),
        (
            pickle.dumps({"data": np.zeros((2, 768), np.uint8), "labels": [0, 1]}),
            "is not laid out as downsampled ImageNet",
        ),
        (
            pickle.dumps({"data": np.zeros((2, 768), np.uint8), "labels": [1, 300]}),
            "val_data has classes that the training images lack",
        ),
    ],
)
def test_damaged(tmp_path: Path, content: bytes, message: str) -> None:
    write(tmp_path)
    (tmp_path / "val_data").write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        create_dataset(str(tmp_path))
    assert str(tmp_path) in str(caught.value)


def test_absent(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"imagenet16-120 is not in {tmp_path}"):
        create_dataset("imagenet16-120", root=tmp_path)
    write(tmp_path)
    (tmp_path / "val_data").unlink()
    with pytest.raises(UserError, match=r"cannot read .*val_data: No such file"):
        create_dataset(str(tmp_path))


def test_more_classes_than_there_are(tmp_path: Path) -> None:
    write(tmp_path, 100)
    with pytest.raises(UserError, match="has no training images of class 101"):
        create_dataset("imagenet16-120", root=tmp_path)

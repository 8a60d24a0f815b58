"""Downsampled ImageNet in its published layout; ImageNet16-120 is its first 120 classes.

Chrabaszcz et al., 2017 (arXiv 1707.08819); 120 classes: Dong and Yang, ICLR 2020 (arXiv
2001.00326). A folder holds `train_data_batch_1` to `_10` and `val_data`, each a pickle of a dict:
`data`, N x 3SS bytes, one row of three planes an image, and `labels`, from 1. A pickle can call any
function that it names. The reader here only builds NumPy arrays of plain numbers, without NumPy's
own reconstruction, and refuses every other name before a call.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diswot.data.dataset import Dataset, Split, resized
from diswot.errors import UserError
from diswot.utils.plain_pickle import PlainDtype

MEAN = (122.68 / 255, 116.66 / 255, 104.01 / 255)
STD = (63.22 / 255, 61.26 / 255, 65.09 / 255)
_TRAIN, _VAL = "train_data_batch_", "val_data"
_CODES = {"u1": "u1", "i4": "<i4", "i8": "<i8", "f4": "<f4", "f8": "<f8"}


def is_imagenet16(path: Path) -> bool:
    """Say whether a folder has this layout."""
    return (path / f"{_TRAIN}1").is_file()


def imagenet16_120(
    name: str, *, img_size: int | None, root: str | Path | None, **_: object
) -> Dataset:
    """Return the first 120 classes, from `root` or `root/ImageNet16`; default `~/.cache/diswot`."""
    home = Path(root) if root else Path.home() / ".cache" / "diswot"
    places = [home, home / "ImageNet16"]
    place = next((place for place in places if is_imagenet16(place)), None)
    if place is None:
        raise UserError(
            f"{name} is not in {home}: {_TRAIN}1 to 10 and {_VAL} make it up; "
            "--data-root names where they are"
        )
    return _data(name, place, 120, img_size)


def imagenet16(name: str, *, num_classes: int | None, img_size: int | None) -> Dataset:
    """Return all classes, or the first `num_classes`, of a folder of this layout.

    Raises:
        UserError: A file is missing, is damaged, or holds other values.
    """
    return _data(name, Path(name), num_classes, img_size)


def _data(name: str, place: Path, num_classes: int | None, img_size: int | None) -> Dataset:
    batches = sorted(place.glob(f"{_TRAIN}*"), key=lambda path: (len(path.name), path.name))
    train, test = _joined(batches, num_classes), _joined([place / _VAL], num_classes)
    count = num_classes or int(train[1].max()) + 1
    missing = set(range(count)) - set(train[1].tolist())
    if missing or count < 2:
        raise UserError(f"{place} has no training images of class {min(missing, default=1) + 1}")
    if int(test[1].max()) >= count:
        raise UserError(f"{place / _VAL} has classes that the training images lack")
    side = img_size or train[0].shape[-1]
    names = tuple(str(label + 1) for label in range(count))
    splits = [
        Split(torch.from_numpy(labels), resized(torch.from_numpy(images), side))
        for images, labels in (train, test)
    ]
    return Dataset(name, names, side, MEAN, STD, *splits)


def _joined(paths: Sequence[Path], num_classes: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the images, N x 3 x S x S, and labels from 0 of the first classes in some files."""
    parts = [_file(path, num_classes) for path in paths]
    shapes = {images.shape[1:] for images, _ in parts}
    if len(shapes) > 1:
        raise UserError(f"{paths[0].parent}: the files differ in the size of their images")
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def _file(path: Path, num_classes: int | None) -> tuple[np.ndarray, np.ndarray]:
    found = load(path)
    try:
        rows, labels = np.asarray(found["data"]), np.asarray(found["labels"], dtype=np.int64)
        side = math.isqrt(rows.shape[1] // 3)
        images = rows.reshape(len(labels), 3, side, side)
        if rows.dtype != np.uint8 or labels.min() < 1:
            raise ValueError("no bytes, or labels below 1")
    except (KeyError, TypeError, IndexError, ValueError, OverflowError) as error:
        raise UserError(f"{path} is not laid out as downsampled ImageNet is") from error
    labels = labels - 1
    kept = slice(None) if num_classes is None else labels < num_classes
    if not len(labels[kept]):
        raise UserError(f"{path} has no images of the first {num_classes} classes")
    return images[kept], labels[kept]


def load(path: Path) -> Any:
    """Unpickle plain values and arrays of numbers.

    Raises:
        UserError: The pickle names anything else, or the file is missing or damaged.
    """
    try:
        with path.open("rb") as file:
            return _plain(_Numbers(file, encoding="latin1").load())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except UserError as error:
        raise UserError(f"{path} {error}") from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged pickle raises anything
        raise UserError(f"{path} is no pickle of plain values and arrays") from error


def _plain(value: Any) -> Any:
    """Replace the stand-ins for arrays in the outermost dict by arrays."""
    if not isinstance(value, dict):
        raise UserError("is no pickle of a dict")
    return {name: v.array() if isinstance(v, _Array) else v for name, v in value.items()}


class _Numbers(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        known: dict[tuple[str, str], Any] = {
            ("numpy", "_reconstruct"): _array,
            ("numpy", "_frombuffer"): _from_buffer,
            ("numpy", "ndarray"): _Array,
            ("numpy", "dtype"): PlainDtype,
            ("_codecs", "encode"): _encoded,
        }
        key = module.partition(".")[0], name
        if key not in known:
            raise UserError(f"asks for {module}.{name}; only arrays of numbers are read")
        return known[key]


class _Array:
    """A stand-in for a NumPy array until its bytes are known."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Take the shape, the dtype, whether the order is Fortran's, and the bytes."""
        _, self.shape, self.kind, self.fortran, self.numbers = state

    def array(self) -> np.ndarray:
        """Return the array. Its bytes limit its size, since a shape may lie."""
        raw = self.numbers.encode("latin1") if isinstance(self.numbers, str) else self.numbers
        flat = np.frombuffer(raw, dtype=_CODES[self.kind.code])
        return flat.reshape(self.shape, order="F" if self.fortran else "C")


def _array(*_: object) -> _Array:
    return _Array()


def _from_buffer(numbers: bytes, kind: PlainDtype, shape: tuple[int, ...], order: str) -> _Array:
    """Build an array as protocol 5 writes it, without `_reconstruct` and a state."""
    array = _Array()
    array.__setstate__((1, shape, kind, order == "F", numbers))
    return array


def _encoded(text: str, codec: str) -> bytes:
    """Return bytes that protocols below 3 write as text."""
    return text.encode({"latin1": "latin1"}[codec])

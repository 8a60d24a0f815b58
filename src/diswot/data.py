"""Labelled images by name, and the fixed batches on which networks are scored.

Images are kept as bytes, N x 3 x S x S, and normalised when used. Grey images become RGB.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from diswot.errors import UserError, unknown

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SPLIT_SEED = 0  # which fifth of a set without test images is kept for testing


class Batch(NamedTuple):
    """Normalised images, B x 3 x S x S, and their labels, B."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Split:
    """Labelled images, read when asked for.

    Attributes:
        labels: N class indices.
        read: The images of some indices as bytes, n x 3 x S x S.
    """

    labels: Tensor
    read: Callable[[Sequence[int]], Tensor]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Data:
    """A data set.

    Attributes:
        name: As the user gave it.
        classes: Names of the K classes.
        size: S, height and width in pixels.
        mean: Of the training images, a channel each, on the scale 0 to 1.
        std: Likewise.
        train: None for noise.
        test: None for noise.
    """

    name: str
    classes: tuple[str, ...]
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train: Split | None
    test: Split | None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return 3, self.size, self.size

    def normalise(self, images: Tensor) -> Tensor:
        """Bytes, B x 3 x S x S, to floats of mean 0 and deviation 1."""
        mean = torch.tensor(self.mean, device=images.device).view(3, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(3, 1, 1)
        return (images.float() / 255 - mean) / std

    def batch(self, size: int = 64, seed: int = 0, repeat: int = 0) -> Batch:
        """The scoring batch of a repeat: training images, classes as even as can be.

        Args:
            size: B, at least 2.
            seed: The user's seed.
            repeat: Number of the repeat.

        Raises:
            UserError: There are fewer images than `size`.
        """
        if size < 2:
            raise UserError(f"a scoring batch needs at least 2 images, not {size}")
        random = np.random.default_rng((seed, repeat))
        if self.train is None:
            images = random.standard_normal((size, *self.image_shape), dtype=np.float32)
            labels = random.permutation(np.arange(size) % len(self.classes))
            return _laid_out(torch.from_numpy(images), torch.from_numpy(labels))
        if size > len(self.train):
            raise UserError(f"{self.name} has {len(self.train)} training images, not {size}")
        chosen = balanced(self.train.labels.numpy(), size, random)
        return _laid_out(self.normalise(self.train.read(chosen)), self.train.labels[chosen])


def _laid_out(images: Tensor, labels: Tensor) -> Batch:
    """Channels last in memory, which halves the time of a convolution on a CPU."""
    return Batch(images.contiguous(memory_format=torch.channels_last), labels)


def balanced(labels: np.ndarray, size: int, random: np.random.Generator) -> list[int]:
    """Indices of `size` samples, drawn in rounds of one a class, the classes in random order."""
    shuffled = random.permutation(len(labels))
    order = random.permutation(int(labels.max()) + 1)[labels[shuffled]]
    turn = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(order):
        members = np.flatnonzero(order == label)
        turn[members] = np.arange(len(members))
    return [int(i) for i in shuffled[np.lexsort((order, turn))[:size]]]


def get(
    name: str,
    *,
    classes: int | None = None,
    size: int | None = None,
    root: str | Path | None = None,
    download: bool = True,
) -> Data:
    """The data set of that name.

    Args:
        name: `noise`, `digits`, `cifar10`, `cifar100`, or a folder with one folder a class, either
            directly in it (a fifth is then kept for testing) or in `train` and `test` or `val`.
        classes: K, for noise only (100 if not given).
        size: S; 32 if not given, and for a folder its first image's shorter side, at most 224.
        root: Where CIFAR lies or is put; `~/.cache/diswot` if not given.
        download: Whether CIFAR may be downloaded.

    Raises:
        UserError: The name is unknown, the folder holds no images, or CIFAR is not there and
            cannot be downloaded.
    """
    if name in SETS:
        return SETS[name](name, classes=classes, size=size, root=root, download=download)
    if Path(name).is_dir():
        return _folder(name, size=size)
    raise unknown("data", name, [*SETS, "a folder of images"])


def _noise(name: str, *, classes: int | None, size: int | None, **_: object) -> Data:
    count = 100 if classes is None else classes
    if count < 2:
        raise UserError(f"noise needs at least 2 classes, not {count}")
    names = tuple(str(i) for i in range(count))
    return Data(name, names, size or 32, (0.0,) * 3, (1.0,) * 3, None, None)


def _digits(name: str, *, size: int | None, **_: object) -> Data:
    """The 1,797 handwritten digits in scikit-learn, 8 x 8 grey, enlarged. Alpaydin, 1998."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    side = size or 32
    grey = torch.from_numpy(raw.images).float().unsqueeze(1) * (255 / 16)
    large = interpolate(grey, size=(side, side), mode="bilinear", align_corners=False)
    images = large.round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()
    labels = torch.from_numpy(raw.target).long()
    train, test = (_held(images[i], labels[i]) for i in _hold_out(labels.numpy()))
    mean, std = float(images.float().mean() / 255), float(images.float().std() / 255)
    return Data(name, tuple("0123456789"), side, (mean,) * 3, (std,) * 3, train, test)


def _cifar(
    name: str, *, size: int | None, root: str | Path | None, download: bool, **_: object
) -> Data:
    """CIFAR-10 and CIFAR-100, through torchvision. Krizhevsky, 2009."""
    from torchvision import datasets

    home = Path(root) if root else Path.home() / ".cache" / "diswot"
    kind = datasets.CIFAR10 if name == "cifar10" else datasets.CIFAR100
    try:
        sets = [kind(str(home), train=train, download=download) for train in (True, False)]
    except (OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{name} is not in {home} and cannot be downloaded: {reason}") from error
    train, test = (
        _held(_resize(torch.from_numpy(s.data).permute(0, 3, 1, 2), size), torch.tensor(s.targets))
        for s in sets
    )
    return Data(name, tuple(sets[0].classes), size or 32, *_CIFAR_STATISTICS[name], train, test)


_CIFAR_STATISTICS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}

SETS: dict[str, Callable[..., Data]] = {
    "noise": _noise,
    "digits": _digits,
    "cifar10": _cifar,
    "cifar100": _cifar,
}


def _folder(name: str, *, size: int | None) -> Data:
    """A folder in torchvision's ImageFolder layout, normalised with ImageNet's statistics."""
    root = Path(name)
    test_root = next((root / n for n in ("test", "val") if (root / n).is_dir()), None)
    if (root / "train").is_dir() and test_root:
        folders = [_image_folder(root / "train"), _image_folder(test_root)]
        if folders[0].classes != folders[1].classes:
            raise UserError(f"{root}/train and {test_root} hold different classes")
        samples = [folder.samples for folder in folders]
    else:
        folders = [_image_folder(root)]
        parts = _hold_out(np.array(folders[0].targets))
        samples = [[folders[0].samples[i] for i in part] for part in parts]
    side = size or min(224, *_open(samples[0][0][0]).size)
    train, test = (
        Split(torch.tensor([y for _, y in s]), partial(_read_files, [p for p, _ in s], side))
        for s in samples
    )
    classes = tuple(folders[0].classes)
    return Data(name, classes, side, IMAGENET_MEAN, IMAGENET_STD, train, test)


def _image_folder(path: Path):  # type: ignore[no-untyped-def]  # torchvision has no types
    from torchvision.datasets import ImageFolder

    try:
        return ImageFolder(str(path))
    except (FileNotFoundError, OSError) as error:
        raise UserError(f"no images in {path}: it needs one folder of images a class") from error


def _open(path: str):  # type: ignore[no-untyped-def]
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise UserError(f"{path} cannot be read as an image") from error


def _read_files(paths: Sequence[str], side: int, indices: Sequence[int]) -> Tensor:
    """Decode images: the shorter side is brought to `side` pixels, then the centre cut out."""
    from PIL import ImageOps

    cut = [ImageOps.fit(_open(paths[i]), (side, side)) for i in indices]
    return torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in cut])


def _held(images: Tensor, labels: Tensor) -> Split:
    return Split(labels, lambda indices: images[torch.as_tensor(indices)])


def _resize(images: Tensor, size: int | None) -> Tensor:
    if size is None or images.shape[-1] == size:
        return images.contiguous()
    large = interpolate(images.float(), size=(size, size), mode="bilinear", antialias=True)
    return large.round().clamp(0, 255).to(torch.uint8)


def _hold_out(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices for training and, a fifth of each class and at least one image, for testing."""
    from sklearn.model_selection import train_test_split

    try:
        return tuple(
            train_test_split(
                np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=SPLIT_SEED
            )
        )
    except ValueError as error:
        raise UserError(f"too few images to keep a fifth of each class: {error}") from error

"""Labelled images by name, and the fixed batches on which networks are scored.

Images are kept as bytes, N x 3 x S x S, and normalised when used. Grey images become RGB.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from diswot.data.builtin import digits, noise
from diswot.data.cifar import cifar
from diswot.data.dataset import Data
from diswot.data.folder import folder
from diswot.data.huggingface import PREFIX, hub
from diswot.data.imagenet16 import imagenet16, imagenet16_120, is_imagenet16
from diswot.data.parquet import is_parquet, parquet
from diswot.errors import UserError, unknown


@dataclass(frozen=True)
class Source:
    """A data set by name, and its facts.

    Attributes:
        load: Takes the options of `get`.
        summary: One line.
        paper: Where it is from.
    """

    load: Callable[..., Data]
    summary: str
    paper: str = ""


_KRIZHEVSKY = "Krizhevsky, 2009"

SETS: dict[str, Source] = {
    "noise": Source(noise, "normal noise, to score on without any images"),
    "digits": Source(
        digits, "1,797 handwritten digits, in scikit-learn", "Alpaydin and Kaynak, 1998"
    ),
    "cifar10": Source(cifar, "60,000 photographs of 10 classes, downloaded", _KRIZHEVSKY),
    "cifar100": Source(cifar, "60,000 photographs of 100 classes, downloaded", _KRIZHEVSKY),
    "imagenet16-120": Source(
        imagenet16_120,
        "157,700 photographs of 120 classes, 16 x 16; not downloaded",
        "Chrabaszcz et al., 2017",
    ),
}


def list_datasets() -> list[str]:
    """List the names of the built-in data sets."""
    return list(SETS)


def create_dataset(
    name: str,
    *,
    classes: int | None = None,
    size: int | None = None,
    root: str | Path | None = None,
    download: bool = True,
) -> Data:
    """The data set of that name.

    Args:
        name: A key of `SETS`; `hf:NAME[,CONFIG][:SPLIT]` for a data set of the Hugging Face hub; a
            Parquet file or a folder of them; a folder of downsampled ImageNet; or a folder with one
            folder a class, either directly in it or in `train`, and in `test` or `val` if there is
            one. Where nothing is for testing, a fifth is kept for it.
        classes: K for noise (100 if not given), and for downsampled ImageNet, its first so many.
        size: S; if not given, the images' own, or of files the first image's shorter side, at most
            224.
        root: Where CIFAR lies or is put, or ImageNet16 lies; `~/.cache/diswot` if not given.
        download: Whether CIFAR may be downloaded.

    Raises:
        UserError: The name is unknown, the folder holds no images, or CIFAR is not there and
            cannot be downloaded.
    """
    if size is not None and size < 1:
        raise UserError(f"images need at least 1 pixel a side, not {size}")
    if name in SETS:
        return SETS[name].load(name, classes=classes, size=size, root=root, download=download)
    if name.startswith(PREFIX):
        return hub(name, size=size)
    path = Path(name)
    if ("/" in name or path.suffix == ".parquet") and not path.exists():
        raise UserError(f"no such folder or file of images: {name}")
    if not name or not path.exists():
        raise unknown("data", name, [*SETS, "a folder of images", "a .parquet file", "hf:NAME"])
    if is_parquet(path):
        return parquet(name, size=size)
    if not path.is_dir():
        raise UserError(f"{name} is a file; name a folder of images, or a .parquet file")
    if is_imagenet16(path):
        return imagenet16(name, classes=classes, size=size)
    return folder(name, size=size)

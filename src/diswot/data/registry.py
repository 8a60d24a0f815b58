"""Data sets by name.

Images are bytes, N x 3 x S x S, and are normalised when used. Grey images become RGB.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from diswot.data.builtin import digits, noise
from diswot.data.cifar import cifar
from diswot.data.coco import coco, is_coco
from diswot.data.dataset import Dataset
from diswot.data.folder import folder
from diswot.data.huggingface import PREFIX, hub
from diswot.data.imagenet16 import imagenet16, imagenet16_120, is_imagenet16
from diswot.data.masks import is_masks, is_voc_masks, masks
from diswot.data.own import as_dataset, own_dataset
from diswot.data.parquet import is_parquet, parquet
from diswot.data.voc import is_voc, voc
from diswot.data.yolo import is_yolo, yolo
from diswot.errors import UserError, unknown
from diswot.utils.user_code import is_spec


@dataclass(frozen=True)
class BuiltinDataset:
    """A built-in data set and its facts.

    Attributes:
        load: Function that takes the name and the options of `create_dataset`.
        summary: One line.
        paper: Authors and year.
    """

    load: Callable[..., Dataset]
    summary: str
    paper: str = ""


_OTHERS = ("a folder of images", "a .parquet file", "hf:NAME", "file.py:NAME")
_KRIZHEVSKY = "Krizhevsky, 2009"

SETS: dict[str, BuiltinDataset] = {
    "noise": BuiltinDataset(noise, "normal noise, for scoring without any images"),
    "digits": BuiltinDataset(
        digits, "1,797 handwritten digits, in scikit-learn", "Alpaydin and Kaynak, 1998"
    ),
    "cifar10": BuiltinDataset(cifar, "60,000 photographs of 10 classes, downloaded", _KRIZHEVSKY),
    "cifar100": BuiltinDataset(cifar, "60,000 photographs of 100 classes, downloaded", _KRIZHEVSKY),
    "imagenet16-120": BuiltinDataset(
        imagenet16_120,
        "157,700 photographs of 120 classes, 16 x 16; not downloaded",
        "Chrabaszcz et al., 2017",
    ),
}


@dataclass(frozen=True)
class FolderLayout:
    """A layout of a folder that is recognised.

    Attributes:
        known: Function that says whether a path has the layout.
        load: Function that takes the path and the height of the images.
        task: Task of the data.
    """

    known: Callable[[Path], bool]
    load: Callable[..., Dataset]
    task: str


LAYOUTS = (
    FolderLayout(is_voc_masks, masks, "segmentation"),
    FolderLayout(is_voc, voc, "detection"),
    FolderLayout(is_coco, coco, "detection"),
    FolderLayout(is_yolo, yolo, "detection"),
    FolderLayout(is_masks, masks, "segmentation"),
)


def list_datasets() -> list[str]:
    """List the names of the built-in data sets."""
    return list(SETS)


def create_dataset(
    name: str | object,
    *,
    num_classes: int | None = None,
    img_size: int | None = None,
    root: str | Path | None = None,
    download: bool = True,
    task: str | None = None,
) -> Dataset:
    """Return the data set of a name.

    Without test images, a stratified 20 % is held out for testing; of images with masks or boxes a
    random 20 %.

    Args:
        name: A key of `SETS`; `hf:NAME[,CONFIG][:SPLIT]` for a data set of the Hugging Face hub; a
            Parquet file or a folder of these; a folder of downsampled ImageNet, of images and
            masks, or of images and boxes in the layout of Pascal VOC, COCO or YOLO; a YAML file of
            YOLO; or a folder that holds one folder of images a class, directly or in `train` and
            `test`. `file.py:function` and `package.module:function` return a data set in any form
            that `as_dataset` takes; it is taken itself, too.
        num_classes: Number of classes of noise, by default 100. Of downsampled ImageNet, only the
            first classes are read. Other data sets ignore the number.
        img_size: Height and width in pixels, S. Default: the published size, or the shorter side
            of the first image file, at most 224; with masks or boxes, the first image's height.
        root: Folder of CIFAR or of ImageNet16, by default `~/.cache/diswot`.
        download: Whether CIFAR may be downloaded.
        task: Task of a folder that has both masks and boxes. Default: segmentation.

    Raises:
        UserError: The name is unknown, there are no images, or CIFAR cannot be downloaded.
    """
    if img_size is not None and img_size < 1:
        raise UserError(f"images need at least 1 pixel a side, not {img_size}")
    if not isinstance(name, str):
        return as_dataset(name, img_size=img_size)
    if name in SETS:
        options = {"num_classes": num_classes, "img_size": img_size}
        return SETS[name].load(name, **options, root=root, download=download)
    if name.startswith(PREFIX):
        return hub(name, img_size=img_size)
    if is_spec(name):
        return own_dataset(name, num_classes=num_classes, img_size=img_size)
    path = Path(name)
    if ("/" in name or path.suffix == ".parquet") and not path.exists():
        raise UserError(f"no such folder or file of images: {name}")
    if not name or not path.exists():
        raise unknown("data", name, [*SETS, *_OTHERS])
    if is_parquet(path):
        return parquet(name, img_size=img_size)
    if not path.is_dir() and not is_yolo(path):
        raise UserError(
            f"{name} is a file; name a folder of images, a .parquet file, or a .yaml file of YOLO"
        )
    if is_imagenet16(path):
        return imagenet16(name, num_classes=num_classes, img_size=img_size)
    known = [layout for layout in LAYOUTS if layout.known(path)]
    wanted = [layout for layout in known if layout.task == task] or known
    return (wanted[0].load if wanted else folder)(name, img_size=img_size)

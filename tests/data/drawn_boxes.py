"""Folders of images with boxes, in the layout of each format."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from diswot.data.dataset import Dataset, Split
from diswot.data.registry import create_dataset

SIZE = (40, 30)  # width and height of the images


def picture(path: Path, size: tuple[int, int] = SIZE) -> Path:
    """Write a grey image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (100, 100, 100)).save(path)
    return path


def loaded(root: Path, **options: Any) -> tuple[Dataset, Split, Split]:
    """A data set for detection, and its splits."""
    data = create_dataset(str(root), **options)
    assert data.task == "detection" and data.train is not None and data.test is not None
    return data, data.train, data.test


def rows(split: Split) -> list[list[list[float]]]:
    """The boxes of each image without the padding."""
    targets = split.targets(range(len(split)))
    assert targets.dtype == torch.float32 and targets.shape[2] == 6
    assert (targets[targets[..., 4] == -1][:, [0, 1, 2, 3, 5]] == 0).all()
    return [[box for box in image if box[4] != -1] for image in targets.tolist()]


def xml(*objects: tuple[Any, ...], size: tuple[int, int] | None = SIZE) -> str:
    """An annotation of Pascal VOC: name, xmin, ymin, xmax, ymax, and perhaps difficult."""
    sides = "" if size is None else "<size><width>{}</width><height>{}</height></size>"
    parts = [
        f"<object><name>{name}</name><difficult>{int(bool(more))}</difficult><bndbox>"
        f"<xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
        for name, a, b, c, d, *more in objects
    ]
    return f"<annotation>{sides.format(*size or ())}{''.join(parts)}</annotation>"


def voc_folder(root: Path, notes: Mapping[str, str], **lists: str) -> Path:
    """Write a folder of Pascal VOC: the annotation of each stem, and the stems of each list."""
    for stem, note in notes.items():
        picture(root / "JPEGImages" / f"{stem}.jpg")
        (root / "Annotations").mkdir(exist_ok=True)
        (root / "Annotations" / f"{stem}.xml").write_text(note)
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for name, stems in lists.items():
        (root / "ImageSets" / "Main" / f"{name}.txt").write_text("\n".join(stems.split()) + "\n")
    return root


CATEGORIES = ({"id": 7, "name": "cat"}, {"id": 3, "name": "ant"})


def coco_facts(
    images: Mapping[str, Sequence[Mapping[str, Any]]],
    categories: Sequence[Mapping[str, Any]] = CATEGORIES,
    **size: int,
) -> dict[str, Any]:
    """The JSON of COCO: the annotations of each file name."""
    sides = size or {"width": SIZE[0], "height": SIZE[1]}
    return {
        "images": [{"id": i, "file_name": name, **sides} for i, name in enumerate(images)],
        "annotations": [
            {"id": 10 * i + j, "image_id": i, "segmentation": [[0, 0, 1, 1]], **note}
            for i, notes in enumerate(images.values())
            for j, note in enumerate(notes)
        ],
        "categories": list(categories),
    }


def write_json(path: Path, facts: object) -> Path:
    """Write a JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(facts))
    return path

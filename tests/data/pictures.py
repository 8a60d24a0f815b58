"""Images made for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

Pixels = np.ndarray[Any, Any]


def paint(seed: int, width: int = 8, height: int = 8) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path: Path, pixels: Pixels | None = None, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(paint(len(str(path))) if pixels is None else pixels)
    image.convert(mode).save(path)


def folder(root: Path, counts: dict[str, int], width: int = 8, height: int = 8) -> Path:
    for name, count in counts.items():
        for i in range(count):
            save(root / name / f"{i}.png", paint(i + 100 * len(name), width, height))
    return root


def as_bytes(pixels: Pixels) -> Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)

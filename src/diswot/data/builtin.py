"""Data sets that need no files: noise, and the digits of scikit-learn."""

from __future__ import annotations

import torch
from torch.nn.functional import interpolate

from diswot.data.dataset import Dataset, Split, hold_out, subset
from diswot.errors import UserError


def noise(name: str, *, num_classes: int | None, img_size: int | None, **_: object) -> Dataset:
    """Return normal noise as images, for scoring; by default 100 classes and 32 x 32 pixels."""
    count = 100 if num_classes is None else num_classes
    if count < 2:
        raise UserError(f"noise needs at least 2 classes, not {count}")
    names = tuple(str(i) for i in range(count))
    return Dataset(name, names, img_size or 32, (0.0,) * 3, (1.0,) * 3, None, None)


def digits(name: str, *, img_size: int | None, **_: object) -> Dataset:
    """Return the handwritten digits, enlarged to `img_size` or 32 pixels; 20 % are held out."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    side = img_size or 32
    grey = torch.from_numpy(raw.images).float().unsqueeze(1) * (255 / 16)
    large = interpolate(grey, size=(side, side), mode="bilinear", align_corners=False)
    images, labels = large.round().to(torch.uint8), torch.from_numpy(raw.target).long()
    everyone = Split(labels, lambda rows: images[torch.as_tensor(rows)].expand(-1, 3, -1, -1))
    train, test = hold_out(raw.target)
    values = images[train].float() / 255
    mean, std = (float(values.mean()),) * 3, (float(values.std()),) * 3
    splits = [subset(everyone, part) for part in (train, test)]
    return Dataset(name, tuple("0123456789"), side, mean, std, *splits)

"""CIFAR-10 and CIFAR-100, through torchvision."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path

import torch

from diswot.data.dataset import Dataset, Split, resized
from diswot.errors import UserError

_STATISTICS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


def cifar(
    name: str, *, img_size: int | None, root: str | Path | None, download: bool, **_: object
) -> Dataset:
    """Return CIFAR-10 or CIFAR-100 from `root` or `~/.cache/diswot`; download it if missing."""
    from torchvision import datasets

    home = Path(root) if root else Path.home() / ".cache" / "diswot"
    kind = datasets.CIFAR10 if name == "cifar10" else datasets.CIFAR100
    try:
        with redirect_stdout(sys.stderr):  # torchvision may print while it downloads
            sets = [kind(str(home), train=train, download=download) for train in (True, False)]
    except (OSError, RuntimeError) as error:
        so = "cannot be downloaded" if download else "was not to be downloaded"
        reason = str(getattr(error, "reason", error)).splitlines()[0]
        raise UserError(
            f"{name} is not in {home} and {so}: {reason}; if you have it, name its folder with "
            "--data-root, or a folder of its images with --data"
        ) from error
    splits = [
        Split(
            torch.tensor(s.targets),
            resized(torch.from_numpy(s.data).permute(0, 3, 1, 2), img_size or 32),
        )
        for s in sets
    ]
    return Dataset(name, tuple(sets[0].classes), img_size or 32, *_STATISTICS[name], *splits)

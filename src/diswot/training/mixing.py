"""RandAugment of torchvision, and mixup and cutmix of timm, with random numbers from given seeds.

A training gives the same images again, in one process or several. The libraries draw from the
global random states of torch and NumPy; a call puts these back.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from timm.data import Mixup  # type: ignore[attr-defined]
from torch import Tensor

OPERATIONS = 2  # of RandAugment on each image, as in Cubuk et al., 2020


def rand_augment(images: Tensor, magnitude: int, seeds: Tensor) -> Tensor:
    """Change each image, bytes B x 3 x S x S, by RandAugment with a seed; magnitudes go to 30."""
    from torchvision.transforms.v2 import RandAugment

    change = RandAugment(OPERATIONS, magnitude)
    changed = []
    with torch.random.fork_rng(devices=[]):
        for image, seed in zip(images, seeds.tolist(), strict=True):
            torch.default_generator.manual_seed(seed)
            changed.append(change(image))
    return torch.stack(changed)


def mix(
    images: Tensor, labels: Tensor, classes: int, mixup: float, cutmix: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Mix each image i of a batch with image B - 1 - i, by mixup or cutmix, at random if by both.

    Args:
        images: Normalised, B x 3 x S x S, with B even; changed in place.
        labels: B.
        classes: K.
        mixup: Alpha of mixup; 0 for none.
        cutmix: Alpha of cutmix; 0 for none.
        seed: Seed of the share and the rectangle, which are the same for all images.

    Returns:
        The images, and the probability of each class, B x K.
    """
    mixer: Any = Mixup(mixup, cutmix, label_smoothing=0.0, num_classes=classes)  # type: ignore[no-untyped-call]
    before = np.random.get_state()
    try:
        np.random.seed(seed)
        mixed: tuple[Tensor, Tensor] = mixer(images, labels)
        return mixed
    finally:
        np.random.set_state(before)

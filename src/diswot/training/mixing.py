"""RandAugment, mixup and cutmix, with random numbers from given seeds.

timm and torchvision draw from the global random states. These are seeded for the time of a call
and then put back, so that a training gives the same images again, in one process or several.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

OPERATIONS = 2  # of RandAugment on each image, as in Cubuk et al., 2020


def rand_augment(images: Tensor, magnitude: int, seeds: Tensor) -> Tensor:
    """Change each image by RandAugment.

    Args:
        images: Bytes, B x 3 x S x S.
        magnitude: Strength of the operations, from 0 to 30.
        seeds: Seed of each image, B.
    """
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
    """Mix each image i of a batch with image B - 1 - i, by mixup or cutmix.

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
    from timm.data import Mixup  # type: ignore[attr-defined]

    mixer = Mixup(  # type: ignore[no-untyped-call]
        mixup, cutmix, label_smoothing=0.0, num_classes=classes
    )
    with _numpy_seeded(seed):
        mixed: tuple[Tensor, Tensor] = mixer(images, labels)
    return mixed


@contextmanager
def _numpy_seeded(seed: int) -> Iterator[None]:
    """Seed numpy's global random state, and put it back at the end."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)

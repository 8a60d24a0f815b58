"""RandAugment, mixup and cutmix, with random numbers from given seeds.

A training gives the same images again, in one process or several. RandAugment is torchvision's,
which draws from torch's global random state; a call forks that state. Mixup and cutmix draw from a
generator of their own, in the order of timm's `Mixup`: a seed gives what that class gives.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

PASTED = 0.5  # share of batches that take cutmix where mixup is on, too
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
    random = np.random.RandomState(seed)
    random.rand()  # timm draws here whether to mix at all
    pastes = cutmix > 0 and (not mixup or random.rand() < PASTED)
    alpha = cutmix if pastes else mixup
    share = float(random.beta(alpha, alpha))
    if pastes:
        rows, columns, share = _rectangle(images.shape[2], images.shape[3], share, random)
        images[:, :, rows, columns] = images.flip(0)[:, :, rows, columns]
    else:
        others = images.flip(0).mul_(1 - share)
        images.mul_(share).add_(others)
    own = one_hot(labels, classes).float()
    return images, own * share + own.flip(0) * (1 - share)


def _rectangle(
    height: int, width: int, share: float, random: np.random.RandomState
) -> tuple[slice, slice, float]:
    """Draw the rectangle that cutmix pastes, and the share of an image that is left beside it.

    Yun et al., ICCV 2019. The rectangle is cut off at the border.
    """
    spans = []
    for side in (height, width):
        cut = int(side * np.sqrt(1 - share))
        centre = random.randint(side)
        spans.append(slice(max(0, centre - cut // 2), min(side, centre + (cut + 1) // 2)))
    rows, columns = spans
    area = (rows.stop - rows.start) * (columns.stop - columns.start)
    return rows, columns, 1 - area / (height * width)

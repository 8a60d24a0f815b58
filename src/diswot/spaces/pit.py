"""The PiT space of pooling vision transformers.

    images -> overlapping patches -> three stages, pooling between -> class token -> head

Paper: Heo et al., "Rethinking Spatial Dimensions of Vision Transformers", ICCV 2021, arXiv
2103.16302. The networks are timm's; PiT-Ti and PiT-XS are among them.
"""

from __future__ import annotations

from optuna.trial import BaseTrial
from timm.models.pit import PoolingVisionTransformer
from torch import nn

BASES = (16, 24, 32, 40, 48)
RATIOS = (2, 3, 4, 6)
DEPTHS = ((1, 2, 3), (4, 6, 8), (2, 4, 6))
HEADS = (2, 3, 4)
GROWTHS = (1, 2)
SIZE = len(BASES) * len(RATIOS) * 3**3 * len(HEADS) * len(GROWTHS) ** 2


def build(trial: BaseTrial, num_classes: int = 100, img_size: int = 32) -> nn.Module:
    """Build a network of eight parameters.

    `base_dim` is the number of channels a head in every stage, `depth_1` to `depth_3` the number of
    layers of each stage, and `heads_1` the number of heads of the first stage. `growth_2` and
    `growth_3` multiply the heads of the stage before, since pooling multiplies channels by a whole
    number.

    Args:
        trial: Chooses the eight parameters.
        num_classes: Number of logits, K.
        img_size: Height and width of the images in pixels; sets the patches.
    """
    base = trial.suggest_categorical("base_dim", BASES)
    ratio = trial.suggest_categorical("mlp_ratio", RATIOS)
    depth = [trial.suggest_categorical(f"depth_{i}", DEPTHS[i - 1]) for i in (1, 2, 3)]
    heads = [trial.suggest_categorical("heads_1", HEADS)]
    for i in (2, 3):
        heads.append(heads[-1] * trial.suggest_categorical(f"growth_{i}", GROWTHS))
    patch, stride = patches(img_size)
    return PoolingVisionTransformer(
        img_size=img_size,
        patch_size=patch,
        stride=stride,
        base_dims=[base] * 3,
        depth=depth,
        heads=heads,
        mlp_ratio=ratio,
        num_classes=num_classes,
    )


def patches(img_size: int) -> tuple[int, int]:
    """Return side and stride of a patch: 16 and 8 at 224 pixels, as published; less below 128."""
    stride = max(1, min(8, img_size // 16))
    return 2 * stride, stride

"""Plain vision transformers, all of whose layers are alike: DeiT-Ti and DeiT-S, and smaller ones.

Papers: Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021; Touvron et al., "Training
data-efficient image transformers & distillation through attention", ICML 2021. The networks are
timm's. `autoformer` is the space whose layers differ.
"""

from __future__ import annotations

from optuna.trial import BaseTrial
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from diswot.spaces.autoformer import patch_size

DEPTHS = (4, 12)
HEADS = (2, 3, 4, 5, 6)
HEAD_WIDTHS = (32, 48, 64)
RATIOS = (2.0, 3.0, 4.0)
SIZE = (DEPTHS[1] - DEPTHS[0] + 1) * len(HEADS) * len(HEAD_WIDTHS) * len(RATIOS)


def build(trial: BaseTrial, classes: int = 1000, image_size: int = 224) -> nn.Module:
    """Build a network of `depth` layers of `heads` heads, `head_width` and `mlp_ratio`.

    Args:
        trial: Asked for the four.
        classes: K.
        image_size: In pixels; sets the patch: 16 at 224, 8 at 64, 4 at 32.
    """
    depth = trial.suggest_int("depth", *DEPTHS)
    heads = trial.suggest_categorical("heads", HEADS)
    head_width = trial.suggest_categorical("head_width", HEAD_WIDTHS)
    ratio = trial.suggest_categorical("mlp_ratio", RATIOS)
    return VisionTransformer(
        img_size=image_size,
        patch_size=patch_size(image_size),
        embed_dim=heads * head_width,
        depth=depth,
        num_heads=heads,
        mlp_ratio=ratio,
        num_classes=classes,
    )

"""The space of plain vision transformers with equal layers: DeiT-Ti, DeiT-S and smaller ones.

Papers: Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021; Touvron et al., "Training
data-efficient image transformers & distillation through attention", ICML 2021. The networks are
timm's. The layers of the space `autoformer` differ.
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


def build(trial: BaseTrial, num_classes: int = 1000, img_size: int = 224) -> nn.Module:
    """Build a network of `depth` layers of `heads` heads, `head_width` and `mlp_ratio`.

    The side of the images sets the patch: 16 pixels at 224, 8 at 64.
    """
    depth = trial.suggest_int("depth", *DEPTHS)
    heads = trial.suggest_categorical("heads", HEADS)
    head_width = trial.suggest_categorical("head_width", HEAD_WIDTHS)
    ratio = trial.suggest_categorical("mlp_ratio", RATIOS)
    return VisionTransformer(
        img_size=img_size,
        patch_size=patch_size(img_size),
        embed_dim=heads * head_width,
        depth=depth,
        num_heads=heads,
        mlp_ratio=ratio,
        num_classes=num_classes,
    )

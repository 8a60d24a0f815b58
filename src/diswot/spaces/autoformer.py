"""The AutoFormer space of vision transformers: depth, width, and heads and MLP ratio per layer.

    images -> patch_embed (+ position) -> blocks -> norm -> mean over patches -> head

Papers: Chen et al., "AutoFormer: Searching Transformers for Visual Recognition", ICCV 2021, arXiv
2107.00651, supernet Tiny; its students on small data sets: Wei et al., "Auto-Prox", AAAI 2024,
arXiv 2312.09059. A head has 64 channels for any width. Where we differ: no relative positions, and
no class token, since the mean over patches does not read one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from optuna.trial import BaseTrial
from timm.layers.attention import Attention
from timm.layers.patch_embed import PatchEmbed
from timm.layers.weight_init import trunc_normal_
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn.parameter import Parameter

from diswot.errors import UserError

WIDTHS = (192, 216, 240)
DEPTHS = (12, 13, 14)
HEADS = (3, 4)
RATIOS = (3.5, 4.0)
HEAD_WIDTH = 64
SIZE = len(WIDTHS) * sum((len(HEADS) * len(RATIOS)) ** depth for depth in DEPTHS)


class WideAttention(Attention):
    """Attention with heads of 64 channels for any width of the tokens."""

    def __init__(self, dim: int, num_heads: int, **options: Any) -> None:
        super().__init__(dim, num_heads, attn_head_dim=HEAD_WIDTH, **options)


class AutoFormer(nn.Module):
    """A vision transformer whose layers differ in heads and MLP ratio.

    Args:
        width: Channels of a token, D.
        heads: Number of attention heads of each layer, with 64 channels each.
        ratios: Hidden width of the MLP of each layer, divided by D.
        num_classes: Number of logits, K.
        img_size: Height and width of the images in pixels, a multiple of the patch size.
    """

    def __init__(
        self,
        width: int,
        heads: Sequence[int],
        ratios: Sequence[float],
        num_classes: int = 100,
        img_size: int = 32,
    ) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(img_size, patch_size(img_size), 3, width)
        self.pos_embed = Parameter(torch.zeros(1, self.patch_embed.num_patches, width))
        trunc_normal_(self.pos_embed, std=0.02)
        self.blocks = nn.Sequential(
            *(
                Block(width, count, ratio, qkv_bias=True, attn_layer=WideAttention)
                for count, ratio in zip(heads, ratios, strict=True)
            )
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images B x 3 x S x S to logits B x K."""
        tokens = self.norm(self.blocks(self.patch_embed(x) + self.pos_embed))
        logits: Tensor = self.head(tokens.mean(1))
        return logits


def build(trial: BaseTrial, num_classes: int = 100, img_size: int = 32) -> AutoFormer:
    """Build a transformer: `depth` and `hidden_dim`, and `heads_i` and `ratio_i` of each layer.

    The depth is chosen first, since the number of other parameters depends on it. The side of the
    images sets the patch size.
    """
    depth = trial.suggest_categorical("depth", DEPTHS)
    width = trial.suggest_categorical("hidden_dim", WIDTHS)
    heads = [trial.suggest_categorical(f"heads_{i}", HEADS) for i in range(1, depth + 1)]
    ratios = [trial.suggest_categorical(f"ratio_{i}", RATIOS) for i in range(1, depth + 1)]
    return AutoFormer(width, heads, ratios, num_classes, img_size)


def patch_size(img_size: int) -> int:
    """Return the largest power of two with 8 patches a side: 16 at 224, 8 at 64, 4 at 32 pixels."""
    return max(2, 1 << max(0, (img_size // 8).bit_length() - 1))


def from_arch(arch: Mapping[str, Any]) -> dict[str, Any]:
    """Convert an architecture from the form of the Auto-Prox benchmark to parameters.

    It has `hidden_dim`, `depth`, and lists `num_heads` and `mlp_ratio` of that length.

    Raises:
        UserError: A value is missing or outside of the space, or a list has another length.
    """
    try:
        depth, width = int(arch["depth"]), int(arch["hidden_dim"])
        heads, ratios = list(arch["num_heads"]), list(arch["mlp_ratio"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"an architecture of autoformer lacks {error}") from error
    for name, values, known in (("num_heads", heads, HEADS), ("mlp_ratio", ratios, RATIOS)):
        if len(values) != depth:
            raise UserError(f"{name} has {len(values)} values for {depth} layers")
        if bad := [value for value in values if value not in known]:
            raise UserError(f"{name} has {bad[0]!r}; known: {', '.join(map(str, known))}")
    if depth not in DEPTHS or width not in WIDTHS:
        raise UserError(f"depth {depth} or hidden_dim {width} is not in the space")
    params: dict[str, Any] = {"depth": depth, "hidden_dim": width}
    params |= {f"heads_{i}": int(value) for i, value in enumerate(heads, 1)}
    return params | {f"ratio_{i}": float(value) for i, value in enumerate(ratios, 1)}

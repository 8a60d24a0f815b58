"""The PiT space of pooling vision transformers.

    images -> overlapping patches -> three stages, pooling between -> class token -> head

Papers: Heo et al., "Rethinking Spatial Dimensions of Vision Transformers", ICCV 2021, arXiv
2103.16302, whose PiT-Ti and PiT-XS are in the space; its students on small data sets: Wei et al.,
"Auto-Prox", AAAI 2024, arXiv 2312.09059. The networks are timm's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.trial import BaseTrial
from timm.models.pit import PoolingVisionTransformer
from torch import nn

from diswot.errors import UserError

BASES = (16, 24, 32, 40, 48)
RATIOS = (2, 3, 4, 6, 8)
DEPTHS = ((1, 2, 3), (4, 6, 8), (2, 4, 6))
HEADS = (
    *("2-2-2", "2-2-4", "2-2-8", "2-4-4", "2-4-8", "2-8-8"),
    *("3-3-3", "3-3-6", "3-6-6", "3-6-12"),
    *("4-4-4", "4-4-8", "4-8-8", "4-8-16", "8-8-8"),
)
SIZE = len(BASES) * len(RATIOS) * 3**3 * len(HEADS)


def build(trial: BaseTrial, num_classes: int = 100, img_size: int = 32) -> nn.Module:
    """Build a network of six parameters.

    `base_dim` is the number of channels a head in every stage; `depth_1` to `depth_3` are the
    numbers of layers of the stages, and `heads` the numbers of heads of the three stages. Pooling
    multiplies channels by a whole number, and so heads. The side of the images sets the patches.
    """
    base = trial.suggest_categorical("base_dim", BASES)
    ratio = trial.suggest_categorical("mlp_ratio", RATIOS)
    depth = [trial.suggest_categorical(f"depth_{i}", DEPTHS[i - 1]) for i in (1, 2, 3)]
    heads = trial.suggest_categorical("heads", HEADS)
    patch, stride = patches(img_size)
    return PoolingVisionTransformer(
        img_size=img_size,
        patch_size=patch,
        stride=stride,
        base_dims=[base] * 3,
        depth=depth,
        heads=[int(count) for count in heads.split("-")],
        mlp_ratio=ratio,
        num_classes=num_classes,
    )


def patches(img_size: int) -> tuple[int, int]:
    """Return side and stride of a patch: 16 and 8 at 224 pixels, as published; less below 128."""
    stride = max(1, min(8, img_size // 16))
    return 2 * stride, stride


def from_arch(arch: Mapping[str, Any]) -> dict[str, Any]:
    """Convert an architecture from the form of the Auto-Prox benchmark to parameters.

    It has `base_dim`, `mlp_ratio`, and lists `depth` and `num_heads` of three stages.

    Raises:
        UserError: A value is missing or outside of the space, or a list has another length.
    """
    try:
        base, ratio = arch["base_dim"], arch["mlp_ratio"]
        depth, heads = list(arch["depth"]), list(arch["num_heads"])
    except (KeyError, TypeError) as error:
        raise UserError(f"an architecture of pit lacks {error}") from error
    for name, values in (("depth", depth), ("num_heads", heads)):
        if len(values) != len(DEPTHS):
            raise UserError(f"{name} has {len(values)} values for {len(DEPTHS)} stages")
    joined = "-".join(map(str, heads))
    allowed = {
        "base_dim": (base, BASES),
        "mlp_ratio": (ratio, RATIOS),
        "num_heads": (joined, HEADS),
    }
    allowed |= {f"depth_{i}": (depth[i - 1], DEPTHS[i - 1]) for i in (1, 2, 3)}
    for name, (value, known) in allowed.items():
        if value not in known:
            raise UserError(f"{name} is {value!r}; known: {', '.join(map(str, known))}")
    depths = {f"depth_{i}": count for i, count in enumerate(depth, 1)}
    return {"base_dim": base, "mlp_ratio": ratio, **depths, "heads": joined}

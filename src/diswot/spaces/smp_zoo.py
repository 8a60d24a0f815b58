"""The space of the networks of segmentation-models-pytorch: decoders with encoders.

One parameter, `model`, chooses among the names that a pattern matches, such as `fpn-resnet*`, or
several patterns separated by commas. Nothing is downloaded: weights are drawn at random.

Iakubovskii, "Segmentation Models PyTorch", 2019.
"""

from __future__ import annotations

import fnmatch
from functools import cache

import timm
from optuna.trial import BaseTrial
from torch import nn

from diswot.errors import UserError
from diswot.models import segmentation_models as smp


@cache
def names(pattern: str) -> tuple[str, ...]:
    """List the networks that a shell pattern matches, or several patterns separated by commas.

    Encoders of timm match only patterns that contain `-tu-`, such as `fpn-tu-mobilenetv3*`.

    Raises:
        UserError: A pattern matches no network.
    """
    found: dict[str, None] = {}
    for each in (part.strip() for part in pattern.split(",")):
        encoders = smp.list_encoders()
        if f"-{smp.TIMM}" in each:
            encoders = [smp.TIMM + name for name in timm.list_models()]
        known = [f"{decoder}-{encoder}" for decoder in smp.list_decoders() for encoder in encoders]
        matching = fnmatch.filter(known, each)
        if not matching:
            raise UserError(f"smp has no network {each!r}; such as fpn-resnet18 or unet-tu-*")
        found |= dict.fromkeys(matching)
    return tuple(found)


def check(pattern: str) -> dict[str, str]:
    """Return the pattern, if it matches a network."""
    names(pattern)
    return {"pattern": pattern}


def build(trial: BaseTrial, pattern: str, num_classes: int = 21, img_size: int = 224) -> nn.Module:
    """Build the network of a name, `model`, that the pattern matches, with random weights.

    Raises:
        UserError: No network matches, or the network does not fit the image size.
    """
    name = trial.suggest_categorical("model", names(pattern))
    return smp.build(name, num_classes, img_size)

"""Spaces of CIFAR ResNets (He et al., CVPR 2016): S0 of DisWOT, and a finer one with widths."""

from __future__ import annotations

import math

from optuna.trial import BaseTrial

from diswot.models.cifar_resnet import WIDTHS, CifarResNet

DEPTHS = (1, 9)
CHOICES = ((8, 16, 24, 32), (16, 32, 48, 64), (32, 64, 96, 128))
SIZE = 4 ** len(WIDTHS)
SIZE_WIDE = math.prod(DEPTHS[1] * len(widths) for widths in CHOICES)


def build(trial: BaseTrial, num_classes: int = 100) -> CifarResNet:
    """Build a network of S0: 1, 3, 5 or 7 blocks in each of three stages of 16, 32, 64 channels.

    64 networks, from ResNet-8 to ResNet-44. DisWOT, CVPR 2023, section 4.1.
    """
    return CifarResNet(
        [trial.suggest_int(f"blocks{i}", 1, 7, step=2) for i in (1, 2, 3)], num_classes
    )


def build_wide(trial: BaseTrial, num_classes: int = 100, features: int = 64) -> CifarResNet:
    """Build a network of 1 to 9 blocks in each of three stages, with a width per stage.

    The choices are `blocks1` to `blocks3` and `width1` to `width3`. The space holds S0, and
    ResNet-20 to ResNet-56. For any last width, the last map has 64 channels, as the teachers have,
    so that scores can compare channels.
    """
    blocks = [trial.suggest_int(f"blocks{i}", *DEPTHS) for i in (1, 2, 3)]
    widths = [trial.suggest_categorical(f"width{i}", CHOICES[i - 1]) for i in (1, 2, 3)]
    return CifarResNet(blocks, num_classes, widths, features)

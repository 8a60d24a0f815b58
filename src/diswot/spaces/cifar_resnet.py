"""CIFAR ResNets (He et al., CVPR 2016): the space S0 of DisWOT, and a finer one with widths."""

from __future__ import annotations

import math

from optuna.trial import BaseTrial

from diswot.models.cifar_resnet import WIDTHS, CifarResNet

DEPTHS = (1, 9)
CHOICES = ((8, 16, 24, 32), (16, 32, 48, 64), (32, 64, 96, 128))
SIZE = 4 ** len(WIDTHS)
SIZE_WIDE = math.prod(DEPTHS[1] * len(widths) for widths in CHOICES)


def build(trial: BaseTrial, classes: int = 100) -> CifarResNet:
    """S0: 1, 3, 5 or 7 basic blocks in each of three stages of 16, 32 and 64 channels.

    64 networks, from ResNet-8 to ResNet-44. DisWOT, CVPR 2023, section 4.1.
    """
    return CifarResNet([trial.suggest_int(f"blocks{i}", 1, 7, step=2) for i in (1, 2, 3)], classes)


def build_wide(trial: BaseTrial, classes: int = 100, features: int = 64) -> CifarResNet:
    """1 to 9 basic blocks in each of three stages, each with its own width: `width1` to `width3`.

    S0 is in it, and so are ResNet-20 to ResNet-56. The last map has 64 channels whatever the last
    width is, as those of the teachers have, so that scores can compare channels.

    Args:
        trial: Asked for the six.
        classes: K.
        features: Channels of the last map.
    """
    blocks = [trial.suggest_int(f"blocks{i}", *DEPTHS) for i in (1, 2, 3)]
    widths = [trial.suggest_categorical(f"width{i}", CHOICES[i - 1]) for i in (1, 2, 3)]
    return CifarResNet(blocks, classes, widths, features)

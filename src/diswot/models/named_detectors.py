"""Detectors by name: the heads of FCOS or RetinaNet on a classifier with a name."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from diswot.errors import unknown
from diswot.models.backbones import split
from diswot.models.preprocessing import InputConfig

EXAMPLE = "detector:timm:resnet18+fcos"
_SIZE = 320  # pixels, where no size is given


def input_config(name: str, pretrained: bool) -> InputConfig:
    """Read the input configuration of the classifier; any number of classes is possible.

    Raises:
        UserError: There is no such classifier, or there are no such heads.
    """
    from diswot.models import registry
    from diswot.models.detectors import HEADS

    backbone, heads = split(name, EXAMPLE)
    if heads not in HEADS:
        raise unknown("detector", heads, HEADS)
    return replace(registry.input_config(backbone, pretrained), num_classes=None, classes=None)


def build(name: str, classes: int, size: int | None, pretrained: bool) -> nn.Module:
    """Build a detector; pretrained weights are those of the classifier."""
    from diswot.models import registry
    from diswot.models.detectors import build_detector, padded

    backbone, heads = split(name, EXAMPLE)
    pixels = size or _SIZE
    network = registry.create_teacher(backbone, classes, padded(pixels), pretrained=pretrained)
    return build_detector(network, heads, classes, pixels, backbone)

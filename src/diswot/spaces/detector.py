"""The space of detectors: a backbone of any space under a feature pyramid and its heads.

`detector:BACKBONE+fcos` or `detector:BACKBONE+retinanet`, such as `detector:mobilenet+fcos`. The
choices are those of the backbone's space, `pyramid_width`, `head_width` and `head_depth`. The heads
are torchvision's, with group norms. The levels of the pyramid fit the size of the images, as
`models.detectors.build_detector` says.

Letters: K classes.
"""

from __future__ import annotations

from typing import Any

from optuna.trial import BaseTrial
from torch import nn

from diswot.models.detectors import HEADS, build_detector, padded
from diswot.spaces.registry import NamedSpace, backbone_space

WIDTHS = (32, 64, 128)  # of the pyramid and of the heads
MOST_DEPTH = 4


def check(parts: str, num_classes: int, img_size: int) -> dict[str, Any]:
    """Return the space of the backbone and the detector in the text after `detector:`."""
    return backbone_space(parts, "detector", HEADS, "detector", num_classes, padded(img_size))


def build(
    trial: BaseTrial,
    backbone: NamedSpace,
    detector: str,
    num_classes: int = 20,
    img_size: int = 320,
) -> nn.Module:
    """Build a detector: the choices of the backbone, then those of the pyramid and the heads.

    The detector is `fcos` or `retinanet`.

    Raises:
        UserError: The backbone has one map alone, or its classifier is no linear layer.
    """
    return build_detector(
        backbone(trial),
        detector,
        num_classes,
        img_size,
        backbone.name,
        width=trial.suggest_categorical("pyramid_width", WIDTHS),
        head_width=trial.suggest_categorical("head_width", WIDTHS),
        head_depth=trial.suggest_int("head_depth", 1, MOST_DEPTH),
    )

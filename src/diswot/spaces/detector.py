"""The space of detectors: a backbone of any space under a feature pyramid and its heads.

`detector:BACKBONE+fcos` or `detector:BACKBONE+retinanet`, such as `detector:mobilenet+fcos`. The
choices are those of the backbone's space, `pyramid_width`, `head_width` and `head_depth`. The heads
are torchvision's, with group norms. The levels of the pyramid fit the size of the images, as
`models.detectors.build_detector` says.

Letters: K classes.
"""

from __future__ import annotations

from optuna.trial import BaseTrial
from torch import nn

from diswot.models.backbones import split
from diswot.models.detectors import HEADS, build_detector, padded
from diswot.spaces.registry import check_parts, create_space

WIDTHS = (32, 64, 128)  # of the pyramid and of the heads
MOST_DEPTH = 4
EXAMPLE = "detector:mobilenet+fcos"


def check(parts: str, num_classes: int, img_size: int) -> None:
    """Check that the text after `detector:` names a space and heads."""
    check_parts(parts, "detector", HEADS, EXAMPLE, num_classes, padded(img_size))


def build(trial: BaseTrial, parts: str, num_classes: int = 20, img_size: int = 320) -> nn.Module:
    """Build a detector: the choices of the backbone, then those of the pyramid and the heads.

    The parts are the name of the backbone's space, a plus, and `fcos` or `retinanet`.

    Raises:
        UserError: The backbone has one map alone, or its classifier is no linear layer.
    """
    backbone, heads = split(parts, EXAMPLE)
    network = create_space(backbone, num_classes, padded(img_size))(trial)
    return build_detector(
        network,
        heads,
        num_classes,
        img_size,
        backbone,
        width=trial.suggest_categorical("pyramid_width", WIDTHS),
        head_width=trial.suggest_categorical("head_width", WIDTHS),
        head_depth=trial.suggest_int("head_depth", 1, MOST_DEPTH),
    )

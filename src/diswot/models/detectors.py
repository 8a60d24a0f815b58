"""Detectors of torchvision for images of any size.

Such a detector maps a list of images and a dict of boxes an image to a dict of losses in training
mode, and a list of images to a dict of boxes, labels and scores an image in evaluation mode. Its
class outputs are K + 1, and output 0 is the background.

Letters: K classes, C channels, H x W pixels.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform


class SameSize(GeneralizedRCNNTransform):  # type: ignore[misc]
    """A transform that keeps size and values of normalised images, and pads them in a batch.

    Args:
        size_divisible: Height and width are padded with zeros to a multiple of this number.
    """

    def __init__(self, size_divisible: int = 32) -> None:
        super().__init__(1, 1, [0.0] * 3, [1.0] * 3, size_divisible)

    def resize(
        self, image: Tensor, target: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Return image and target as they are."""
        return image, target

    def __repr__(self) -> str:
        return f"SameSize({self.size_divisible})"


def at_own_size(detector: Any) -> nn.Module:
    """Return a detector of torchvision that takes normalised images and does not resize them.

    Args:
        detector: The detector, which is changed in place.
    """
    detector.transform = SameSize(detector.transform.size_divisible)
    model: nn.Module = detector
    return model

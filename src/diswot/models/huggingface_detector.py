"""Detectors of Hugging Face transformers, such as DETR, by the convention of torchvision's.

Letters: B images, K classes, Q queries, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert

Boxes = Mapping[str, Tensor]

_COEFFICIENTS = {
    "loss_bbox": "bbox_loss_coefficient",
    "loss_giou": "giou_loss_coefficient",
}  # names of weights in configurations; the others are 1, or in the losses already
_MOST = 100  # boxes of an image


class HuggingFaceDetector(nn.Module):
    """A detector of transformers as torchvision's detectors are: losses in training, else boxes.

    Classes are 1 to K. The losses have the weights of transformers, so that their sum is its loss.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, images: Sequence[Tensor], targets: Sequence[Boxes] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Return the losses in training mode; else the best 100 boxes of each image.

        All images have one size, 3 x H x W.
        """
        pixels = torch.stack([*images])
        if self.training:
            assert targets is not None
            return self._losses(pixels, targets)
        found = self.model(pixel_values=pixels)
        boxes = box_convert(found.pred_boxes, "cxcywh", "xyxy") * _extent(pixels)
        scores = self._scores(found.logits)
        return [_best(*each) for each in zip(scores, boxes, strict=True)]

    def _losses(self, pixels: Tensor, targets: Sequence[Boxes]) -> dict[str, Tensor]:
        labels = [
            {
                "class_labels": each["labels"] - 1,
                "boxes": box_convert(each["boxes"], "xyxy", "cxcywh") / _extent(pixels),
            }
            for each in targets
        ]
        parts: dict[str, Tensor] = self.model(pixel_values=pixels, labels=labels).loss_dict
        return {n: self._weight(n) * loss for n, loss in parts.items() if n.startswith("loss")}

    def _weight(self, name: str) -> float:
        config: Any = self.model.config
        key = next((key for start, key in _COEFFICIENTS.items() if name.startswith(start)), "")
        return float(getattr(config, key, 1))

    def _scores(self, logits: Tensor) -> Tensor:
        """Return the scores of all classes, B x Q x K.

        With one logit more than classes, the last stands for no object; otherwise each class has a
        sigmoid of its own.
        """
        config: Any = self.model.config
        if logits.shape[2] == config.num_labels:
            return logits.sigmoid()
        return logits.softmax(2)[..., :-1]


def _extent(pixels: Tensor) -> Tensor:
    """Return width, height, width and height of the images."""
    height, width = pixels.shape[2:]
    return pixels.new_tensor([width, height, width, height])


def _best(scores: Tensor, boxes: Tensor) -> dict[str, Tensor]:
    """Return the boxes, Q x 4, and classes with the highest scores, Q x K, of an image."""
    values, places = scores.flatten().topk(min(_MOST, scores.numel()))
    classes = scores.shape[1]
    return {
        "boxes": boxes[places // classes],
        "labels": places % classes + 1,
        "scores": values,
    }

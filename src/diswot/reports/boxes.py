"""Boxes of test images, drawn over their image.

Letters: B images, M boxes an image.
"""

from __future__ import annotations

import torch
from matplotlib.colors import to_hex
from PIL import ImageDraw
from torch import Tensor

from diswot.observation.rows import IGNORED
from diswot.reports.drawing import GREY, Colour, Drawing
from diswot.reports.pictures import encoded, resized

SIDE = 240  # width or height of a picture in pixels, the larger of the two
SCORE = 0.3  # lowest score of a predicted box that is drawn
LINE = 2  # width of a line in pixels


def high_scores(predicted: Tensor, targets: Tensor) -> Tensor:
    """Return the boxes, B x 100 x 6, whose score, the last column, is high enough to be drawn."""
    drawn = predicted.clone()
    drawn[..., 4] = torch.where(predicted[..., 5] >= SCORE, predicted[..., 4], IGNORED)
    drawn[..., 5] = 0
    return drawn


def draw_boxes(pixels: Tensor, boxes: Tensor, palette: list[Colour]) -> str:
    """Draw boxes, M x 6, over an image, 3 x H x W, as a PNG data URI; difficult ones are grey."""
    image = resized(pixels, SIDE)
    scale = torch.tensor([image.width / pixels.shape[2], image.height / pixels.shape[1]] * 2)
    pen = ImageDraw.Draw(image)
    for row in boxes[boxes[:, 4] != IGNORED]:
        x1, y1, x2, y2 = (row[:4] * scale).tolist()
        colour = to_hex(GREY if row[5] else palette[int(row[4])])
        pen.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colour, width=LINE)
    return encoded(image)


def present(boxes: Tensor) -> set[int]:
    """Return the classes of boxes, B x M x 6; `IGNORED` for crowds and difficult objects."""
    kept = boxes[boxes[..., 4] != IGNORED]
    return set(torch.where(kept[:, 5] > 0, IGNORED, kept[:, 4]).int().tolist())


BOXES = Drawing(
    name="boxes",
    note=f"Predicted boxes of a score below {SCORE:g} are not drawn.",
    measured="Average precision over IoUs of 0.5 to 0.95",
    grey="crowd or difficult",
    plain=False,
    as_targets=high_scores,
    draw=draw_boxes,
    present=present,
)

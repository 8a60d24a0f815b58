"""Export of detectors as ONNX, with what chooses the boxes, checked box by box.

torchvision's detectors are written by the exporter that traces a pass: the number of boxes depends
on the image, which the exporter of `torch.export` does not take.

Letters: n boxes of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from diswot.costs.onnx_program import BOXES, OneImage, check_onnx, write_detector
from diswot.errors import ExportFailed
from diswot.exporters.formats import ONNX, TOLERANCE, onnx_function, reason_of
from diswot.exporters.model_card import StudentDescription
from diswot.utils import files

NOISE = 3  # random images of the check
STRAY = 0.02  # share of boxes that may have no counterpart
ROUNDING, TIED = 1e-6, 0.1  # scores that are equal, and the share beyond which boxes are arbitrary
USE = """import onnxruntime

session = onnxruntime.InferenceSession("student.onnx")
boxes, labels, scores = session.run(None, {"images": image})  # float32, 1 x C x H x W
# boxes: n x 4, as x1, y1, x2, y2 in pixels; labels: n, from 1, as 0 is the background; scores: n"""

Found = Sequence[Tensor]


def save_detector(model: nn.Module, folder: Path, description: StudentDescription) -> list[Path]:
    """Write a detector as ONNX for one image of fixed size; return the path of the file.

    Raises:
        UserError: A package is missing, or the file cannot be written.
    """
    check_onnx("--format onnx")
    example, path = torch.zeros(1, *description.image_shape), folder / ONNX
    files.write(path, partial(write_detector, model, example))
    return [path]


def check_detector(model: nn.Module, folder: Path, description: StudentDescription) -> str:
    """Compare boxes, labels and scores of the file with those of the detector; say what was found.

    A detector that has learned next to nothing gives many boxes the same score, and which of them
    it keeps is not defined. Images of which that is true are not compared.

    Raises:
        ExportFailed: A difference exceeds `TOLERANCE`, or the file cannot be run.
    """
    generator = torch.Generator().manual_seed(0)
    images = list(torch.randn(NOISE, *description.image_shape, generator=generator))
    images += [] if description.samples is None else list(description.samples)
    network, side = OneImage(model).eval(), max(description.image_shape)
    try:
        run = onnx_function(folder / ONNX, list(BOXES))
        exported = [run(image[None]) for image in images]
    except Exception as error:  # a runtime may raise anything for a wrong file
        raise ExportFailed(f"the exported file cannot be run: {reason_of(error)}") from error
    worst, count, undefined = 0.0, 0, 0
    for image, found in zip(images, exported, strict=True):
        with torch.no_grad():
            expected = network(image[None])
        apart = difference(expected, found, side)
        if apart <= TOLERANCE or not tied(expected[2]):
            worst, count = max(worst, apart), count + len(expected[0])
        else:
            undefined += 1
    if not worst <= TOLERANCE:
        raise ExportFailed(f"the exported file differs from the network by {worst:.2g}")
    if undefined == len(images):
        return "Not checked: many scores of the network are equal, so that its boxes are arbitrary."
    compared = f"{len(images) - undefined} images"
    if not count:
        return f"Checked after writing: like the network it finds no box in {compared}."
    return (
        f"Checked after writing: {count} boxes and scores in {compared} are within {worst:.1g} of "
        "the network's."
    )


def tied(scores: Tensor) -> bool:
    """Say whether many scores equal their neighbour in order, up to rounding."""
    gaps = scores.sort().values.diff()
    return bool((gaps < ROUNDING).float().mean() > TIED) if len(gaps) else False


def difference(expected: Found, found: Found, side: int) -> float:
    """Return the largest difference of a box from the one most like it, in either direction.

    Boxes of equal scores may come in another order. One of 50 boxes may have no counterpart, since
    rounding decides between boxes that overlap just enough to exclude each other.

    Args:
        expected: Boxes in pixels, n x 4, labels and scores, n each.
        found: The same of the exported file.
        side: Side of the image in pixels, to which differences of coordinates are relative.

    Returns:
        The difference; infinity if one side alone has boxes, or a label has no counterpart.
    """
    if not len(expected[0]) or not len(found[0]):
        return 0.0 if len(expected[0]) == len(found[0]) else float("inf")
    boxes, labels, scores = (
        one[:, None] - other[None] for one, other in zip(expected, found, strict=True)
    )
    apart = torch.maximum(boxes.abs().amax(2) / side, scores.abs())
    apart = apart.masked_fill(labels != 0, float("inf"))
    nearest = torch.cat((apart.amin(0), apart.amin(1))).sort().values
    return float(nearest[len(nearest) - 1 - int(STRAY * len(nearest))])

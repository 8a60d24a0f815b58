"""Teachers with other classes than the data, cut down to the classes that both have.

They were trained on more classes, on fewer, in another order, or with other names.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from diswot.errors import UserError
from diswot.models.class_outputs import keep_outputs, select_detector_classes
from diswot.models.preprocessing import Aliases
from diswot.observation.dense_head import head_convolutions
from diswot.observation.hooks import run
from diswot.observation.modes import measuring
from diswot.observation.rows import PixelRows, logits_of


def read_class_names(path: str | Path) -> list[Aliases]:
    """Read the classes of a teacher, in the order of its outputs, by their names in the data.

    Args:
        path: CSV file without a header, a line for each output: the teacher's class, and, if the
            data has another name for it, that name.

    Raises:
        UserError: The file cannot be read, or a line is empty.
    """
    try:
        rows = list(csv.reader(Path(path).read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(f"cannot read {path}: {reason}") from error
    names = [next((cell.strip() for cell in reversed(row[:2]) if cell.strip()), "") for row in rows]
    if "" in names or not names:
        raise UserError(f"{path}: line {names.index('') + 1 if names else 1} names no class")
    return [(name,) for name in names]


def match_classes(teacher: Sequence[Aliases], data: Sequence[str]) -> list[int]:
    """Return the teacher's output for each class of the data; -1 for a class that it has not.

    Upper and lower case, spaces, hyphens and underscores make no difference. Both are in the order
    of the outputs; the teacher's classes have several names each.

    Raises:
        UserError: A class of the data is two of the teacher's.
    """
    places: dict[str, set[int]] = {}
    for place, names in enumerate(teacher):
        for name in names:
            places.setdefault(_plain(name), set()).add(place)
    found = [places.get(_plain(name), {-1}) for name in data]
    if twice := [name for name, outputs in zip(data, found, strict=True) if len(outputs) > 1]:
        raise UserError(
            f"{twice[0]} is the name of several of the teacher's classes; give each its own name "
            "with --teacher-classes"
        )
    return [output for outputs in found for output in outputs]


def _plain(name: str) -> str:
    return "".join(each for each in name.casefold() if each not in " -_")


def select_classes(model: nn.Module, outputs: Sequence[int], image_shape: Sequence[int]) -> None:
    """Cut the classifier of a network down to some of its outputs, in another order.

    The classifier is a linear layer; in a network for segmentation a convolution, or several whose
    outputs are summed; in a detector of torchvision its heads, whose background stays. The mode of
    the network comes back. `image_shape` is that of the images that it takes.

    Raises:
        UserError: The logits are not the output of such layers.
    """
    if select_detector_classes(model, outputs):
        return
    device = next(model.parameters()).device
    with torch.no_grad(), measuring(model):
        heads = _last_layers(model, torch.randn(2, *image_shape, device=device))
    if not heads:
        raise UserError("the teacher's logits are not the output of a linear layer to cut down")
    for head in heads:
        keep_outputs(head, torch.as_tensor(outputs))


def _last_layers(model: nn.Module, images: Tensor) -> Sequence[nn.Module]:
    """Return the layer whose output is the logits, or the layers whose outputs are summed to it."""
    if logits_of(model(images)).ndim == 2:
        trace = run(model, images, {})
        assert trace.logits is not None
        return [each.module for each in trace.heads.values() if each.gives(trace.logits)][-1:]
    rows = PixelRows(torch.zeros_like(images[:, 0], dtype=torch.int64))
    trace = run(model, images, {}, targets=rows.targets)
    assert trace.logits is not None
    return [
        each.module
        for each in head_convolutions(trace.convolutions, rows.read(trace.logits), rows)[0]
    ]

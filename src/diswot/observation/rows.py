"""Rows of a batch: the inputs of the last linear map, its outputs and its targets.

In classification a row is an image. In segmentation a row is a pixel that is not ignored; the rows
of a batch are at most 4,096 of its pixels, the same ones for all networks.

Letters: B images, N rows, K classes, C channels, H x W pixels of the targets, h x w positions of a
map.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate

from diswot.errors import UserError

IGNORED = -1  # target of a pixel that is no row
MOST_ROWS = 4096
_SEED = 0  # of the pixels that are drawn


def is_dense(targets: Tensor) -> bool:
    """Say whether each pixel has a target, B x H x W, and not each image, B."""
    return targets.ndim == 3 and not targets.is_floating_point()


def logits_of(outputs: object) -> Tensor:
    """Return the logits among the outputs of a network.

    They are a tensor; a dict with `out`, as torchvision's networks for segmentation return; or an
    object with `logits`, as those of transformers.

    Raises:
        UserError: There are none.
    """
    found = outputs.get("out") if isinstance(outputs, Mapping) else outputs
    found = getattr(outputs, "logits", None) if found is None else found
    found = found if isinstance(found, Tensor) else getattr(found, "logits", None)
    if not isinstance(found, Tensor):
        raise UserError(
            f"the model must return logits: a tensor, a dict with out, or an object with logits; "
            f"not a {type(outputs).__name__}"
        )
    return found


def resized_logits(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the logits of a dense network, B x K x h x w, at the size of its targets."""
    if logits.shape[2:] == size:
        return logits
    return interpolate(logits, size, mode="bilinear", align_corners=False)


def mean_cross_entropy(outputs: object, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return the mean cross-entropy of a network's outputs, over all pixels that have a target.

    It is 0 if no pixel has one.

    Args:
        outputs: As for `logits_of`; the logits are B x K or B x K x h x w.
        targets: Class indices, B or B x H x W; `IGNORED` for a pixel without one.
        smoothing: Share of the target that is spread over all classes.
    """
    logits = logits_of(outputs)
    if not is_dense(targets):
        return cross_entropy(logits, targets, label_smoothing=smoothing)
    total = cross_entropy(
        _fitting(logits, targets),
        targets,
        ignore_index=IGNORED,
        label_smoothing=smoothing,
        reduction="sum",
    )
    return total / (targets != IGNORED).sum().clamp_min(1)


def summed_cross_entropy(outputs: object, targets: Tensor) -> Tensor:
    """Return the sum over images of each image's mean cross-entropy; see `mean_cross_entropy`."""
    logits = logits_of(outputs)
    if not is_dense(targets):
        return cross_entropy(logits, targets, reduction="sum")
    losses = cross_entropy(
        _fitting(logits, targets), targets, ignore_index=IGNORED, reduction="none"
    )
    return (losses.sum((1, 2)) / (targets != IGNORED).sum((1, 2)).clamp_min(1)).sum()


def _fitting(logits: Tensor, targets: Tensor) -> Tensor:
    height, width = targets.shape[1:]
    return resized_logits(logits, (height, width))


@dataclass(frozen=True)
class PixelRows:
    """Pixels of a batch that are its rows.

    Attributes:
        targets: Class indices, B x H x W; `IGNORED` for a pixel that is no row.
    """

    targets: Tensor

    @cached_property
    def places(self) -> tuple[Tensor, Tensor, Tensor]:
        """Image, height and width of each row, N each, drawn by a fixed seed if there are many.

        Raises:
            UserError: All pixels are ignored.
        """
        flat = (self.targets.flatten() != IGNORED).nonzero().squeeze(1)
        if not len(flat):
            raise UserError("all pixels of the batch are ignored")
        if len(flat) > MOST_ROWS:
            random = np.random.default_rng(_SEED)  # torch would permute all pixels
            drawn = np.sort(random.choice(len(flat), MOST_ROWS, replace=False, shuffle=False))
            flat = flat[torch.from_numpy(drawn).to(flat.device)]
        height, width = self.targets.shape[1:]
        inside = flat % (height * width)
        return flat // (height * width), inside // width, inside % width

    @property
    def classes(self) -> Tensor:
        """Targets of the rows, N."""
        image, row, column = self.places
        return self.targets[image, row, column]

    def every(self, step: int) -> PixelRows:
        """Return every row of a step, from the first."""
        some = PixelRows(self.targets)
        vars(some)["places"] = tuple(each[::step] for each in self.places)
        return some

    def read(self, maps: Tensor, *, align_corners: bool = False) -> Tensor:
        """Return the values of a map at the rows, N x C, by bilinear interpolation to H x W."""
        image, row, column = self.places
        size = self.targets.shape[1:]
        if maps.shape[2:] == size:
            return maps[image, :, row, column]
        top, bottom, down = _neighbours(row, size[0], maps.shape[2], align_corners)
        left, right, across = _neighbours(column, size[1], maps.shape[3], align_corners)
        upper = maps[image, :, top, left].lerp(maps[image, :, top, right], across.to(maps))
        lower = maps[image, :, bottom, left].lerp(maps[image, :, bottom, right], across.to(maps))
        return upper.lerp(lower, down.to(maps))


def _neighbours(
    at: Tensor, pixels: int, positions: int, align_corners: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the two positions around each pixel, and the weight of the second, N x 1."""
    if align_corners:
        source = at.double() * (positions - 1) / max(pixels - 1, 1)
    else:
        source = ((at.double() + 0.5) * positions / pixels - 0.5).clamp_min(0)
    first = source.floor().long().clamp_max(positions - 1)
    second = (first + 1).clamp_max(positions - 1)
    return first, second, (source - first)[:, None]

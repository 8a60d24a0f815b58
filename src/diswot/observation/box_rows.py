"""Rows of a detector: the anchors, points or proposals on which its classifier is looked at.

They are all that its matcher finds positive, 2,048 at most, and as many negative ones, drawn by a
fixed seed. So two detectors with the same anchors have the same rows.

Letters: B images, A anchors (or points, or proposals) of all images, N rows, K classes, C channels,
D features that enter the classifier, h x w positions of a level.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from diswot.observation.boxes import BACKGROUND
from diswot.observation.dense_head import RanConvolution, agree, zero_padding
from diswot.observation.detectors import Matches

MOST_POSITIVE = 2048
_SEED = 0  # of the rows that are drawn


@dataclass(frozen=True)
class BoxRows:
    """Rows of a pass of a detector.

    Attributes:
        matches: Anchors, points or proposals of the pass.
    """

    matches: Matches

    @cached_property
    def places(self) -> Tensor:
        """Place of each row among the anchors, N, the positive ones first; at least one."""
        classes = self.matches.classes
        random = torch.Generator().manual_seed(_SEED)
        positive = _drawn((classes > BACKGROUND).nonzero().squeeze(1), MOST_POSITIVE, random)
        negative = (classes == BACKGROUND).nonzero().squeeze(1)
        return torch.cat([positive, _drawn(negative, max(len(positive), 1), random)])

    @property
    def classes(self) -> Tensor:
        """Class of each row, N: from 1 to K, or 0 for the background."""
        return self.matches.classes[self.places]

    @property
    def anchors(self) -> Tensor:
        """Image and box of each row, N x 5; equal in networks that share anchors."""
        return self.matches.boxes[self.places]

    def logits(self, matches: Matches | None = None) -> Tensor:
        """Return the logits of the rows, N x (K + 1), in the first pass or in another one.

        Where each class has a probability of its own, the background's logit is 0: the softmax of
        the background and one class is then that probability.
        """
        matches = self.matches if matches is None else matches
        found = matches.logits[self.places]
        return pad(found[:, 1:], (1, 0)) if matches.sigmoid else found

    @cached_property
    def layers(self) -> list[nn.Module]:
        """Layers that give the logits, each once; none if they are not found."""
        if self.matches.linear is not None:
            return [self.matches.linear[0]]
        return list(dict.fromkeys(level.ran.module for level in self._levels))

    def head_input(self) -> tuple[Tensor, bool]:
        """Return what enters the classifier, and whether the logits are its linear function.

        It is the patch of the last convolution at a row's position, so that all anchors of a point
        have the same. Levels with convolutions of their own have columns of their own, which are
        zero in the rows of other levels.

        Returns:
            N x D. D is C times the kernel; it is C if a convolution has groups, or pads with
            anything but zeros.
        """
        if self.matches.linear is not None:
            return self.matches.linear[1][self.places], True
        patches = all(zero_padding(level.ran.module) is not None for level in self._levels)
        found = [(level, level.inputs(patches=patches)) for level in self._levels]
        columns = [
            self._placed([(each, part) for each, part in found if each.ran.module is layer])
            for layer in self.layers
        ]
        given = self._placed([(level, level.logits()) for level in self._levels])
        linear = patches and agree(given, self.matches.logits[self.places])
        return torch.cat(columns, 1), linear

    def _placed(self, parts: list[tuple[_LevelRows, Tensor]]) -> Tensor:
        """Return values of some levels at their rows, and zeros at the others, N x ..."""
        rows = torch.cat([level.rows for level, _ in parts])
        values = torch.cat([values for _, values in parts])
        return values.new_zeros(len(self.places), values.shape[1]).index_copy(0, rows, values)

    @cached_property
    def _levels(self) -> list[_LevelRows]:
        """Rows of each level, from the first level; none if the convolutions do not fit."""
        classes, ran = self.matches.logits.shape[1], self.matches.convolutions
        sizes = [each.output[0].numel() // classes for each in ran]
        images = len(ran[0].output) if ran else 1
        if sum(sizes) * images != len(self.matches.logits):
            return []
        image, inside = self.places // sum(sizes), self.places % sum(sizes)
        found, first = [], 0
        for each, size in zip(ran, sizes, strict=True):
            rows = ((first <= inside) & (inside < first + size)).nonzero().squeeze(1)
            found.append(_LevelRows(each, rows, image[rows], inside[rows] - first, classes))
            first += size
        return found


@dataclass(frozen=True)
class _LevelRows:
    """Rows of one level.

    Attributes:
        ran: Call of the convolution that gives the level's logits.
        rows: Place of each among the N rows, n.
        image: Number of its image.
        anchor: Number of its anchor among those of the level: position by position.
        classes: Number of outputs an anchor, K + 1.
    """

    ran: RanConvolution
    rows: Tensor
    image: Tensor
    anchor: Tensor
    classes: int

    def logits(self) -> Tensor:
        """Return what the convolution gives at the rows, n x (K + 1)."""
        output, (row, column) = self.ran.output, self._position
        given = output.reshape(len(output), self._anchors, self.classes, *output.shape[2:])
        return given[self.image, self.anchor % self._anchors, :, row, column]

    def inputs(self, *, patches: bool) -> Tensor:
        """Return what enters the convolution at the rows, n x D: patches, or only their centres."""
        module, features = self.ran.module, self.ran.input
        places = [at * step for at, step in zip(self._position, module.stride, strict=True)]
        if not patches:
            return features[self.image, :, places[0], places[1]]
        down, across = zero_padding(module) or (0, 0)
        features = pad(features, (across, across, down, down))
        rows, columns = (
            at[:, None] + step * torch.arange(side, device=at.device)
            for at, side, step in zip(places, module.kernel_size, module.dilation, strict=True)
        )
        found = features[self.image[:, None, None], :, rows[:, :, None], columns[:, None]]
        return found.movedim(-1, 1).flatten(1)

    @property
    def _anchors(self) -> int:
        """Number of anchors a position."""
        return self.ran.output.shape[1] // self.classes

    @property
    def _position(self) -> tuple[Tensor, Tensor]:
        """Height and width of each row in the level."""
        position, width = self.anchor // self._anchors, self.ran.output.shape[3]
        return position // width, position % width


def _drawn(places: Tensor, most: int, random: torch.Generator) -> Tensor:
    """Return some places in their order; `most` of them, drawn, if there are more."""
    if len(places) <= most:
        return places
    drawn = torch.randperm(len(places), generator=random)[:most].sort().values
    return places[drawn.to(places.device)]

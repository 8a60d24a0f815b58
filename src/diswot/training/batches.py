"""The batches of an epoch: images in a random order, augmented and normalised."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from diswot.data.augmentation import (
    Augmentation,
    apply,
    apply_to_boxes,
    apply_to_masks,
    draw,
    select,
)
from diswot.data.dataset import Dataset
from diswot.data.loader import BatchSource
from diswot.errors import UserError
from diswot.models.initialization import derive_seed
from diswot.observation.boxes import is_boxes
from diswot.observation.rows import is_dense
from diswot.training import mixing
from diswot.training.distributed import Processes
from diswot.training.recipe import Recipe

BATCHES = 20  # on which statistics are estimated
SEEDS = 2**31  # of random numbers that a library draws


class Part(NamedTuple):
    """Images of a part of a batch, on the device: the share of this process.

    Attributes:
        images: Normalised, B x 3 x H x W.
        labels: B; of a mixed image the label with the larger share. Of pixels, B x H x W.
            Boxes, B x M x 6.
        targets: Probability of each class, B x K; None where no images are mixed.
        indices: Numbers of the training images, B.
    """

    images: Tensor
    labels: Tensor
    targets: Tensor | None
    indices: Tensor


def augmented_batches(data: Dataset, recipe: Recipe) -> Iterator[Tensor]:
    """Yield batches of training images as a training sees them, to estimate statistics on.

    Images are normalised, B x 3 x S x S, with the recipe's crops, flips and cutout; none are mixed.
    """
    assert data.train is not None
    generator = Generator().manual_seed(derive_seed(recipe.seed))
    size = min(recipe.batch_size, len(data.train))
    changes = Augmentation(recipe.crop, recipe.area, recipe.flip, recipe.cutout)
    for _ in range(BATCHES):
        chosen = torch.randperm(len(data.train), generator=generator)[:size]
        drawn = draw(changes, size, data.image_shape[1:], generator)
        images = apply(data.train.read(chosen.tolist()), changes, drawn)
        yield data.normalise(images).contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Batches:
    """Batches and parts of the training images of an epoch."""

    data: Dataset
    recipe: Recipe
    processes: Processes

    def __post_init__(self) -> None:
        parts = self.recipe.accumulate
        self.processes.check(self.size or self.recipe.batch_size, parts)
        if self.recipe.batch_size < 2 * parts:
            raise UserError(
                f"each of the {parts} parts of a batch needs 2 images, and the batch has "
                f"{self.recipe.batch_size}: raise --batch-size or lower --accumulate"
            )
        if self.size < 2 * parts:
            raise UserError(f"{self.count} images are too few for a batch in {parts} parts")
        share = self.part_size // self.processes.count
        if self.recipe.mixes and share % 2:
            raise UserError(f"mixup and cutmix mix pairs, and a process has {share} images a part")

    @property
    def count(self) -> int:
        """Number of training images."""
        assert self.data.train is not None
        return len(self.data.train)

    @property
    def steps(self) -> int:
        """Updates in an epoch. The images that are left over are not seen in that epoch."""
        return self.count // self.recipe.batch_size or 1

    @property
    def size(self) -> int:
        """Images in a batch, over all processes."""
        if self.count >= self.recipe.batch_size:
            return self.recipe.batch_size
        shares = self.recipe.accumulate * self.processes.count * (2 if self.recipe.mixes else 1)
        return self.count - self.count % shares

    @property
    def part_size(self) -> int:
        """Images in a part of a batch, over all processes."""
        return self.size // self.recipe.accumulate

    def epoch(self, source: BatchSource, seed: int) -> Iterator[list[Part]]:
        """Yield the parts of each batch of an epoch; of two views the weak one first.

        Random numbers are drawn for the images of all processes, so that an image is the same
        in one process and in several.
        """
        generator = Generator().manual_seed(seed)
        order = torch.randperm(self.count, generator=generator)[: self.steps * self.size]
        share = self.processes.share(self.part_size)
        pieces = [piece[share] for piece in torch.split(order, self.part_size)]
        read = zip(source.batches(pieces), pieces, strict=True)
        parts = (
            self._part(view, *each, indices, generator)
            for each, indices in read
            for view in self._views()
        )
        while batch := list(islice(parts, self.recipe.accumulate * self.recipe.views)):
            yield batch

    def _views(self) -> list[Recipe]:
        if self.recipe.views == 1:
            return [self.recipe]
        weak = replace(self.recipe, views=1, cutout=0, randaugment=0, mixup=0.0, cutmix=0.0)
        return [weak, self.recipe]

    def _part(
        self, recipe: Recipe, images: Tensor, labels: Tensor, indices: Tensor, generator: Generator
    ) -> Part:
        """Augment and normalise the images of this process."""
        share = self.processes.share(self.part_size)
        changes = Augmentation(recipe.crop, recipe.area, recipe.flip, recipe.cutout)
        drawn = draw(changes, self.part_size, self.data.image_shape[1:], generator)
        mine = select(drawn, share)
        images = apply(images, changes, mine)
        if is_dense(labels):
            labels = apply_to_masks(labels, changes, mine)
        elif is_boxes(labels):
            labels = apply_to_boxes(labels, changes, mine, self.data.image_shape[1:])
        if recipe.randaugment:
            seeds = torch.randint(SEEDS, (self.part_size,), generator=generator)
            images = mixing.rand_augment(images, recipe.randaugment, seeds[share])
        batch = self.data.normalise(images).contiguous(memory_format=torch.channels_last)
        if not recipe.mixes:
            return Part(batch, labels, None, indices)
        seed, classes = int(torch.randint(SEEDS, (), generator=generator)), len(self.data.classes)
        batch, targets = mixing.mix(batch, labels, classes, recipe.mixup, recipe.cutmix, seed)
        return Part(batch, targets.argmax(1), targets, indices)

"""Data sets of labelled images, and the fixed batches on which networks are scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from diswot.errors import UserError

BATCH = 64  # images of a scoring batch
READ_BATCH = 500
UNLABELLED = -1  # label of a training image without one
HELD_OUT, SPLIT_SEED = 0.2, 0  # share for testing of a data set without test images, and seed


Read = Callable[[Sequence[int]], Tensor]  # what is of some images, by their numbers


class Batch(NamedTuple):
    """Normalised images, B x 3 x H x W, and their targets.

    Labels are class indices of the images, B, or of the pixels, B x H x W; or boxes, B x M x 6, as
    `observation.boxes` describes them.
    """

    images: Tensor
    labels: Tensor

    def __repr__(self) -> str:
        return f"Batch(images={_brief(self.images)}, labels={_brief(self.labels)})"


def _brief(value: object) -> str:
    """Return the kind and the shape of a tensor; another value as it is."""
    if not isinstance(value, Tensor):
        return repr(value)
    return f"{str(value.dtype).removeprefix('torch.')} tensor {tuple(value.shape)}"


@dataclass(frozen=True, repr=False)
class Split:
    """Labelled images that are read on demand.

    Attributes:
        labels: Class indices, N; `UNLABELLED` for an image without a label. Zeros if the
            annotations are of pixels; if they are boxes, the class of an image's rarest box, and K
            for an image without boxes.
        read: Function that returns the images of n indices as bytes, n x 3 x H x W.
        annotations: Function that returns the targets of n images: the class indices of their
            pixels, n x H x W, with `UNLABELLED` for a pixel that is ignored; or their boxes,
            n x M x 6, as `observation.boxes` describes them. None if an image has one label.
    """

    labels: Tensor
    read: Read
    annotations: Read | None = None

    def targets(self, indices: Sequence[int]) -> Tensor:
        """Return the labels of some images, n, of their pixels, n x H x W, or their boxes."""
        if self.annotations is None:
            return self.labels[torch.as_tensor(indices, dtype=torch.int64)]
        return self.annotations(indices)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Split({len(self)} images)"


@dataclass(frozen=True, repr=False)
class Dataset:
    """A data set of labelled images.

    Attributes:
        name: The name that the user wrote.
        classes: Names of the K classes.
        size: Height of the images in pixels, S, and their width unless there is another.
        mean: Mean of each channel, on the scale 0 to 1.
        std: Standard deviation of each channel, on the same scale.
        train: Images for training; None for noise.
        test: Images for testing; None for noise.
        width: Width of the images in pixels; None, the default, for square ones.
        task: Name of the task, a row of `tasks.registry`.
    """

    name: str
    classes: tuple[str, ...]
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train: Split | None
    test: Split | None
    width: int | None = field(default=None, kw_only=True)
    task: str = field(default="classification", kw_only=True)

    def __repr__(self) -> str:
        parts = {"training": self.train, "test": self.test}
        counts = "".join(f", {len(part)} {name} images" for name, part in parts.items() if part)
        pixels = f"{self.width or self.size} x {self.size} pixels"
        return f"Dataset({self.name!r}, {len(self.classes)} classes, {pixels}{counts})"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return 3, self.size, self.width or self.size

    @property
    def image_facts(self) -> dict[str, Any]:
        """Size, normalisation, and the width and task of a dense task, for run folders."""
        dense = {} if self.width is None else {"image_width": self.width, "task": self.task}
        return {"image_size": self.size, **dense, "mean": [*self.mean], "std": [*self.std]}

    @property
    def has_unlabelled(self) -> bool:
        """Whether some training images have no label."""
        return self.train is not None and bool((self.train.labels == UNLABELLED).any())

    @property
    def has_labels(self) -> bool:
        """Whether some training images have a label."""
        return self.train is not None and bool((self.train.labels != UNLABELLED).any())

    @property
    def tests_agreement(self) -> bool:
        """Whether no test image has a label, so that only a teacher can be agreed with."""
        return self.test is not None and bool((self.test.labels == UNLABELLED).all())

    def normalise(self, images: Tensor) -> Tensor:
        """Convert bytes, B x 3 x S x S, to floats: subtract the mean, divide by the deviation."""
        mean = torch.tensor(self.mean, device=images.device).view(3, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(3, 1, 1)
        return (images.float() / 255 - mean) / std

    def batch(self, size: int = BATCH, seed: int = 0, repeat: int = 0) -> Batch:
        """Return the scoring batch of a repeat, from 0: training images, balanced over the classes.

        Images without boxes are drawn if there are too few images with boxes.

        Raises:
            UserError: There are fewer training images than `size`, or `size` is below 2.
        """
        if size < 2:
            raise UserError(f"a scoring batch needs at least 2 images, not {size}")
        random = np.random.default_rng((seed, repeat))
        if self.train is None:
            images = random.standard_normal((size, *self.image_shape), dtype=np.float32)
            labels = random.permutation(np.arange(size) % len(self.classes))
            return _laid_out(torch.from_numpy(images), torch.from_numpy(labels))
        if size > len(self.train):
            raise UserError(
                f"{self.name} has {len(self.train)} training images, and the scoring batch takes "
                f"{size}; --batch-size {len(self.train)} takes all"
            )
        chosen = balanced(self.train.labels.numpy(), size, random, len(self.classes))
        return _laid_out(self.normalise(self.train.read(chosen)), self.train.targets(chosen))

    def default_batch(self, seed: int = 0) -> Batch:
        """Return a scoring batch of 64 images, or of all training images if there are fewer."""
        return self.batch(BATCH if self.train is None else min(BATCH, len(self.train)), seed)


def whole(
    split: Split,
    device: torch.device | str = "cpu",
    on_read: Callable[[int], None] = lambda done: None,
) -> tuple[Tensor, Tensor]:
    """Read all images of a split, at least one, as bytes, N x 3 x H x W, and the labels.

    They are read in parts, so that the memory holds each image once. `on_read` is called after each
    part with the number of images read so far.

    Returns:
        The images, and class indices, N, int64; or those of pixels, N x H x W, int16; or boxes.

    Raises:
        UserError: The images are not bytes.
    """
    parts = torch.split(torch.arange(len(split)), READ_BATCH)
    images, targets = torch.empty(0), []
    for part in parts:
        read = split.read(part.tolist())
        if read.dtype != torch.uint8:
            raise UserError(f"images must be bytes, 0 to 255, not {read.dtype}")
        if not len(images):
            images = torch.empty(len(split), *read.shape[1:], dtype=torch.uint8, device=device)
        images[part[0] : part[-1] + 1] = read
        if split.annotations is not None:
            found = split.targets(part.tolist())
            targets.append(found if found.is_floating_point() else found.short())
        on_read(int(part[-1]) + 1)
    return images, (torch.cat(targets) if targets else split.labels).to(device)


def subset(split: Split, chosen: np.ndarray) -> Split:
    """Return the images of some numbers of a split."""
    indices = torch.as_tensor(chosen)
    annotations = None if split.annotations is None else partial(_some, split.annotations, indices)
    return Split(split.labels[indices], partial(_some, split.read, indices), annotations)


def _some(read: Read, indices: Tensor, wanted: Sequence[int]) -> Tensor:
    return read(indices[torch.as_tensor(wanted)].tolist())


def resized(images: Tensor, side: int) -> Read:
    """Return a reader of a tensor of bytes, N x 3 x H x H, that resizes images to `side` pixels."""

    def read(indices: Sequence[int]) -> Tensor:
        chosen = images[torch.as_tensor(indices)].contiguous()
        if chosen.shape[-1] == side:
            return chosen
        sized = interpolate(chosen.float(), size=(side, side), mode="bilinear", antialias=True)
        return sized.round().clamp(0, 255).to(torch.uint8)

    return read


def _laid_out(images: Tensor, labels: Tensor) -> Batch:
    """Return a batch in channels-last memory format, which halves convolution time on a CPU."""
    return Batch(images.contiguous(memory_format=torch.channels_last), labels)


def balanced(
    labels: np.ndarray, size: int, random: np.random.Generator, last: int | None = None
) -> list[int]:
    """Draw the indices of `size` samples, round-robin over the classes in random order.

    Samples of the class `last` come after all others.
    """
    shuffled = random.permutation(len(labels))
    order = random.permutation(int(labels.max()) + 1)[labels[shuffled]]
    turn = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(order):
        members = np.flatnonzero(order == label)
        turn[members] = np.arange(len(members))
    turn[labels[shuffled] == last] += len(labels)
    return [int(i) for i in shuffled[np.lexsort((order, turn))[:size]]]


def hold_out_any(name: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of images for training and those of a random, held-out 20 %.

    Raises:
        UserError: There are too few images; the error has the name of the data set.
    """
    held = round(HELD_OUT * count)
    if not held:
        raise UserError(f"{name} has {count} images, too few to hold out 20 % for testing")
    order = np.random.default_rng(SPLIT_SEED).permutation(count)
    return np.sort(order[held:]), np.sort(order[:held])


def hold_out(labels: np.ndarray, classes: Sequence[str] = ()) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices for training and the indices of a stratified, held-out 20 %.

    Raises:
        UserError: There are too few images; the error has the name of the rarest class, if known.
    """
    from sklearn.model_selection import train_test_split

    try:
        return tuple(
            train_test_split(
                np.arange(len(labels)),
                test_size=HELD_OUT,
                stratify=labels,
                random_state=SPLIT_SEED,
            )
        )
    except ValueError as error:
        found, counts = np.unique(labels, return_counts=True)
        rarest = int(found[counts.argmin()]) if len(found) else 0
        name = f", {classes[rarest]}" if classes else ""
        raise UserError(
            f"too few images to hold out 20 % of each class for testing: {len(labels)} of "
            f"{len(counts)} classes, {min(counts, default=0)} of the rarest{name}"
        ) from error


def held_out(data: Dataset) -> Dataset:
    """Split the training images: four fifths to train on, one fifth as test images.

    Raises:
        UserError: There are none, or too few.
    """
    if data.train is None:
        raise UserError(f"{data.name} has no images to train on")
    if data.task == "detection":  # a class may be that of a single image
        parts = hold_out_any(data.name, len(data.train))
    else:
        parts = hold_out(data.train.labels.numpy(), data.classes)
    train, test = (subset(data.train, part) for part in parts)
    return replace(data, train=train, test=test)

"""Checks of the images and labels that a student is about to learn from."""

from __future__ import annotations

import torch

from diswot.data.dataset import UNLABELLED, Dataset, Split
from diswot.observation.boxes import is_boxes
from diswot.training.finding import Finding, Sample

UNBALANCED = 10  # times the images of the rarest class
DARK = 16  # of 255
MOST = 1000  # images with masks or boxes that are looked at, spread over the set
PIXELS = 100  # images whose pixels have their mean and deviation computed
FLAT = 0.5  # share of images of one colour
CENTRE, SPREAD = 2.0, (0.2, 5.0)  # limits of normalised pixels


def check_labels(data: Dataset) -> Finding:
    """Look for classes without images, and for classes that are much rarer than others."""
    name = "label balance"
    assert data.train is not None and data.test is not None
    splits = {"training": data.train, "test": data.test}
    train, test = (_counts(split, len(data.classes)) for split in splits.values())
    if not train.any():
        return Finding(name, "good", "no training image has a label")
    for (kind, split), counts in zip(splits.items(), (train, test), strict=True):
        if empty := [data.classes[i] for i in (counts == 0).nonzero().flatten().tolist()]:
            text = (
                f"{len(empty)} of {len(counts)} classes have no {kind} images, such as {empty[0]}"
            )
            remedy = "add images of these classes, or drop the classes"
            if split.annotations is None or len(split) <= MOST:
                return Finding(name, "wrong", text, remedy)
            return Finding(name, "warning", f"{text}, among {MOST:,} of {len(split):,}", remedy)
    most, least = int(train.argmax()), int(train.argmin())
    text = f"{int(train[least])} to {int(train[most])} training images a class"
    if train[most] < UNBALANCED * train[least]:
        return Finding(name, "good", text)
    text += f"; rarest {data.classes[least]}, most frequent {data.classes[most]}"
    remedy = "add or repeat images of the rare classes; accuracy alone hides what they lose"
    return Finding(name, "warning", text, remedy)


def _counts(split: Split, classes: int) -> torch.Tensor:
    """Return the number of images of each class; of annotated ones, those in which it occurs."""
    if split.annotations is None:
        known = split.labels[split.labels != UNLABELLED]
        return torch.bincount(known, minlength=classes)
    counts = torch.zeros(classes, dtype=torch.int64)
    for index in torch.linspace(0, len(split) - 1, min(MOST, len(split))).long().tolist():
        targets = split.targets([index])
        found = (targets[..., 4] if is_boxes(targets) else targets).long().flatten()
        counts[torch.unique(found[found != UNLABELLED])] += 1
    return counts


def check_range(data: Dataset, sample: Sample) -> Finding:
    """Look at the range of the pixels, before and after they are normalised."""
    name, images = "image range", sample.images
    highest = int(images.max())
    if highest <= DARK:
        text = f"no pixel is brighter than {highest} of 255"
        return Finding(name, "wrong", text, "write the images again, on the scale 0 to 255")
    flat = float((images.flatten(1).amax(1) == images.flatten(1).amin(1)).float().mean())
    if flat > FLAT:
        text = f"{flat:.0%} of the images have a single colour"
        return Finding(name, "wrong", text, "look at the image files: they hold no picture")
    images = images[:PIXELS]
    normal = data.normalise(images)
    mean, spread = float(normal.mean()), float(normal.std())
    text = f"normalised pixels have mean {mean:.2f} and deviation {spread:.2f}"
    if abs(mean) <= CENTRE and SPREAD[0] <= spread <= SPREAD[1]:
        return Finding(name, "good", text)
    own = images.float().div(255).transpose(0, 1).flatten(1)
    given = " --std ".join(
        ",".join(f"{value:.3f}" for value in values.tolist())
        for values in (own.mean(1), own.std(1))
    )
    remedy = f"unless the teacher was trained so, normalise by these images: --mean {given}"
    return Finding(name, "warning", text, remedy)

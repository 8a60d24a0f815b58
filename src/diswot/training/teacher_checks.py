"""Checks of a teacher: does it know these classes in these images, as the loader shows them?

Letters: N images, K classes.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import islice

import torch
from torch import Tensor

from diswot.data.loader import StreamedImages
from diswot.tasks.registry import task_of
from diswot.training.batches import Batches
from diswot.training.distributed import Processes
from diswot.training.evaluation import predict, sum_counts
from diswot.training.finding import Finding, Sample
from diswot.training.trainable import Distillation

BATCH = 100
SIGMAS = 3  # standard deviations beyond which a difference is no chance
GAIN = 0.01  # smallest share of images by which another reading must be better
HARMFUL = 0.1  # share of images that a wrong normalisation costs, beyond which it is no detail
OVERFITTED = 0.3  # more of the training images than of the test images are classified right
WEAK = 5.0  # %, below which a teacher of masks or boxes is suspicious
LOST = 0.2  # share of images that augmentation makes the teacher classify wrong

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]

NORMALISATIONS: dict[str, Normalisation] = {
    "ImageNet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "CIFAR-10": ((0.491, 0.482, 0.447), (0.247, 0.244, 0.262)),
    "CIFAR-100": ((0.507, 0.487, 0.441), (0.267, 0.256, 0.276)),
    "CLIP": ((0.481, 0.458, 0.408), (0.269, 0.261, 0.276)),
    "-1 to 1": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "0 to 1": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "0 to 255": ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
}
"""Means and standard deviations with which published networks are trained, by name."""


def outputs_of(given: Distillation, images: Tensor) -> Tensor:
    """Return the logits of the teacher in evaluation mode, N x K, on the CPU."""
    assert given.teacher is not None
    device = next(given.teacher.parameters()).device
    parts = ((part.to(device), part.new_empty(0)) for part in torch.split(images, BATCH))
    logits = predict(given.teacher, given.data, parts)
    return torch.cat([each.float().cpu() for each, _ in logits])


def check_accuracy(test: Tensor, train: Tensor, labels: Tensor) -> Finding:
    """Compare a teacher with guessing, and with itself on training images.

    `test` and `train` say which images are classified right; `labels` are those of test images.
    """
    name, count = "teacher's accuracy", len(test)
    right, seen = _share(test), _share(train)
    guess = int(torch.bincount(labels).max()) / count
    text = f"{right:.1%} of {count} test images"
    if right <= guess + SIGMAS * math.sqrt(guess * (1 - guess) / count):
        remedy = (
            "mend the wrong findings below; if there are none, the weights are not this network's"
        )
        return Finding(name, "wrong", f"{text}, no better than guessing ({guess:.1%})", remedy)
    if seen > right + OVERFITTED:
        remedy = "teach with images new to the teacher (--unlabelled), or train it for fewer epochs"
        return Finding(name, "warning", f"{text}, and {seen:.1%} of training images", remedy)
    return Finding(name, "good", text)


def check_result(given: Distillation, images: int, device: torch.device) -> Finding:
    """Measure a teacher on at most `images` test images, which have masks or boxes."""
    data, task = given.data, task_of(given.data)
    assert data.test is not None and given.teacher is not None
    chosen = torch.linspace(0, len(data.test) - 1, min(images, len(data.test))).long()
    source = StreamedImages(data.test, device)
    counts = sum_counts(given.teacher, data, source, chosen)
    measured = task.results(counts.cpu(), len(data.classes)).means[task.result]
    text = f"{task.measure} {measured:.1f} % on {len(chosen)} images"
    if not measured < WEAK:
        return Finding("teacher's result", "good", text)
    remedy = "look at its weights, its classes and the normalisation; it has little to teach"
    return Finding("teacher's result", "warning", text, remedy)


def check_order(logits: Tensor, labels: Tensor, classes: tuple[str, ...]) -> Finding:
    """Look for an order of the classes in which the teacher is right far more often.

    The best permutation is chosen on the first half of the images and tested on the second half.
    """
    from scipy.optimize import linear_sum_assignment

    name, answers, half = "class order", logits.argmax(1), len(labels) // 2
    pairs = answers[:half] * len(classes) + labels[:half]
    matrix = torch.bincount(pairs, minlength=len(classes) ** 2).view(len(classes), -1)
    _, columns = linear_sum_assignment(-matrix.numpy())
    turned = torch.as_tensor(columns)
    plain, other = answers[half:] == labels[half:], turned[answers[half:]] == labels[half:]
    if not _better(other, plain):
        return Finding(name, "good", "no other order of the classes fits better")
    moved = [i for i, j in enumerate(columns.tolist()) if i != j and matrix[i, j]]
    text = (
        f"{_share(other):.1%} right in another order of the classes, {_share(plain):.1%} in this "
        f"one: output {moved[0]} is {classes[columns[moved[0]]]}, not {classes[moved[0]]}"
    )
    remedy = "name the folders of the data in the teacher's order, or reorder its last layer"
    return Finding(name, "wrong", text, remedy)


def check_normalisation(given: Distillation, sample: Sample) -> Finding:
    """Look for a usual normalisation, or order of channels, that the teacher knows better."""
    name = "normalisation"
    plain = sample.right(outputs_of(given, sample.images))
    found: dict[str, tuple[Tensor, str]] = {}
    for known, (mean, std) in {**NORMALISATIONS, **_own(sample)}.items():
        other = replace(given, data=replace(given.data, mean=mean, std=std))
        both = " --std ".join(",".join(f"{v:.4g}" for v in values) for values in (mean, std))
        right = sample.right(outputs_of(other, sample.images))
        found[f"that of {known}"] = right, f"--mean {both}"
    turned = sample.right(outputs_of(given, sample.images.flip(1)))
    remedy = "reverse the input channels of the teacher's first layer"
    found["channels from blue to red"] = turned, remedy
    best = max(found, key=lambda each: int(found[each][0].sum()))
    right, remedy = found[best]
    if not _better(right, plain):
        return Finding(name, "good", "no usual normalisation fits better")
    text = f"{_share(right):.1%} right with {best}, {_share(plain):.1%} with this one"
    lost = _share(right) - _share(plain)
    return Finding(name, "wrong" if lost > HARMFUL else "warning", text, remedy)


def _own(sample: Sample) -> dict[str, Normalisation]:
    """Return the statistics of the images themselves."""
    pixels = sample.images.float().div(255).transpose(0, 1).flatten(1)
    mean, std = pixels.mean(1).tolist(), pixels.std(1).clamp_min(1e-3).tolist()
    return {"these images": (tuple(mean), tuple(std))}


def check_augmentation(
    given: Distillation, images: int, plain: Tensor, processes: Processes
) -> Finding:
    """Compare the accuracy on augmented training images with that on as many `plain` ones."""
    name, data, recipe = "augmentation", given.data, given.recipe
    if not recipe.alters:
        return Finding(name, "good", "images are not altered")
    if not len(plain):
        return Finding(name, "good", "no training image has a label to compare with")
    assert data.train is not None and given.teacher is not None
    batches = Batches(data, recipe, processes)
    right = []
    epoch = batches.epoch(StreamedImages(data.train, processes.device), recipe.seed)
    for parts in islice(epoch, max(1, images // batches.size)):
        for part in parts:
            sample = Sample(part.images, part.labels).labelled_as(given.classes)
            with torch.no_grad():
                right.append(sample.right(given.teacher(part.images)).cpu())
    augmented, still = _share(torch.cat(right)), _share(plain)
    text = (
        f"the teacher classifies {augmented:.1%} of augmented and {still:.1%} of plain images right"
    )
    if augmented >= still - LOST:
        return Finding(name, "good", text)
    return Finding(
        name, "warning", text, "augment less: crop, area, cutout, randaugment, mixup, cutmix"
    )


def _share(right: Tensor) -> float:
    return float(right.float().mean()) if len(right) else 0.0


def _better(other: Tensor, plain: Tensor) -> bool:
    """Whether more images are classified right, by a margin and beyond chance."""
    gain = int(other.sum()) - int(plain.sum())
    noise = SIGMAS * math.sqrt(int((other != plain).sum()))
    return gain > max(GAIN * len(plain), noise)

"""What networks predict for test images: pictures, and the result of each class.

Letters: K classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.colors import to_hex
from torch import Tensor, nn

from diswot.costs.counts import count_macs
from diswot.data.dataset import Dataset
from diswot.models.weights import load_weights
from diswot.observation.rows import IGNORED
from diswot.reports.boxes import BOXES
from diswot.reports.drawing import GREY, Drawing, class_colours
from diswot.reports.masks import MASKS
from diswot.reports.pictures import evenly_spread, picture
from diswot.runs.rebuild import IMAGE_FACTS, RecordedNetworks
from diswot.runs.records import TrainingRecord
from diswot.tasks.registry import task_of
from diswot.tasks.task import table
from diswot.training.evaluation import batch_size, frozen, predict
from diswot.utils.untrusted import Facts

DRAWN = 6  # test images that are drawn
MEASURED = 100  # test images for the result of each class, at most
MAX_MACS = 100e9  # multiply-adds of all predictions, a few seconds on a CPU

DRAWINGS: dict[str, Drawing] = {"segmentation": MASKS, "detection": BOXES}
"""How predictions are drawn, by task."""


@dataclass(frozen=True)
class LegendEntry:
    """A class in the pictures, and its colour as CSS writes it."""

    name: str
    colour: str


@dataclass(frozen=True)
class ClassResult:
    """The result of a class, or a mean, in % by network; None if the class never occurs."""

    name: str
    percents: Mapping[str, float | None]
    mean: bool = False


@dataclass(frozen=True)
class PredictionComparison:
    """Predictions of networks for some test images.

    Attributes:
        drawn: What is drawn, such as masks.
        note: What a reader must know of the pictures.
        measure: Measure of one class, such as IoU.
        explained: The measure in words.
        legend: Classes that occur in the pictures.
        pictures: Data URIs by what they show, for at most `DRAWN` images: the image, perhaps; the
            truth; and the prediction of each network.
        rows: A row for each class, and the means at the end; empty without a network.
        images: Number of images that the results are measured on.
    """

    drawn: str
    note: str
    measure: str
    explained: str
    legend: list[LegendEntry]
    pictures: list[dict[str, str]]
    rows: list[ClassResult]
    images: int


def recorded_predictions(
    config: Facts, training: TrainingRecord | None, images: Dataset | None
) -> PredictionComparison | None:
    """Compare what the trained networks of a run predict; None for a task that is not drawn."""
    result = training.result if training else {}
    facts = {**config, **result}
    recorded = RecordedNetworks(facts)
    if images is None or any(facts.get(name) != config.get(name) for name in IMAGE_FACTS):
        images = recorded.images()
    if images.test is None or images.task not in DRAWINGS:
        return None
    networks = {}
    source = result if result.get("teacher") else config
    weights = source.get("teacher_weights")
    other = result.get("teacher_classes") or result.get("teacher_image_size")
    if source.get("teacher") and weights and Path(str(weights)).is_file() and not other:
        facts["teacher"] = source["teacher"]
        networks["teacher"] = recorded.teacher(str(weights))
    if training is not None and training.weights is not None:
        networks["student"] = recorded.student(result["student"])
        load_weights(networks["student"], training.weights)
    return compare_predictions(images, networks)


def compare_predictions(images: Dataset, networks: Mapping[str, nn.Module]) -> PredictionComparison:
    """Compare the targets of some test images with what trained networks predict.

    The images are spread evenly over the test images. There are fewer for costly networks, which
    are on the CPU.
    """
    assert images.test is not None
    drawing, task = DRAWINGS[images.task], task_of(images)
    count = _affordable(images, networks)
    chosen, drawn = evenly_spread(len(images.test), count), evenly_spread(count, DRAWN)
    pixels, truth = images.test.read(chosen), images.test.targets(chosen)
    shown, percents = {"truth": truth}, {}
    for name, network in networks.items():
        predicted, percents[name] = _predicted(images, network, pixels, truth)
        shown[name] = drawing.as_targets(predicted, truth)
    present = set.union(*(drawing.present(each[drawn]) for each in shown.values()))
    return PredictionComparison(
        drawing.name,
        drawing.note,
        task.class_measure,
        drawing.measured,
        _legend(images, drawing, present),
        [_pictures(drawing, pixels[i], {n: each[i] for n, each in shown.items()}, images)
         for i in drawn],
        _rows(images, percents),
        count,
    )  # fmt: skip


def _legend(images: Dataset, drawing: Drawing, present: set[int]) -> list[LegendEntry]:
    palette = class_colours(len(images.classes))
    shown = sorted(present - {IGNORED})
    legend = [LegendEntry(images.classes[k], to_hex(palette[k])) for k in shown]
    return legend + [LegendEntry(drawing.grey, to_hex(GREY))] * (IGNORED in present)


def _pictures(
    drawing: Drawing, pixels: Tensor, targets: Mapping[str, Tensor], images: Dataset
) -> dict[str, str]:
    palette = class_colours(len(images.classes))
    plain = {"image": picture(pixels / 255)} if drawing.plain else {}
    return plain | {
        name: drawing.draw(pixels / 255, each, palette) for name, each in targets.items()
    }


def _affordable(images: Dataset, networks: Mapping[str, nn.Module]) -> int:
    """Return the number of test images whose predictions stay within `MAX_MACS`."""
    assert images.test is not None
    macs = sum(count_macs(network, images.image_shape) for network in networks.values())
    affordable = max(1, int(MAX_MACS // macs)) if macs else MEASURED
    return min(MEASURED, affordable, len(images.test))


def _predicted(
    images: Dataset, network: nn.Module, pixels: Tensor, truth: Tensor
) -> tuple[Tensor, list[float]]:
    """Return the predictions, and the result of each class and the means in %."""
    task, counts, found = task_of(images), [], []
    parts = torch.split(torch.arange(len(pixels)), batch_size(images))
    batches = ((pixels[part], truth[part]) for part in parts)
    with frozen(network):
        for predicted, targets in predict(network, images, batches):
            counts.append(task.count(predicted, targets))
            found.append(predicted)
    results = task.results(task.combine(counts), len(images.classes))
    return torch.cat(found), [value for _, value in table(task, results, images.classes)]


def _rows(images: Dataset, percents: Mapping[str, list[float]]) -> list[ClassResult]:
    known = {
        who: [value if math.isfinite(value) else None for value in values]
        for who, values in percents.items()
    }
    names = [*images.classes, *task_of(images).means] if known else []
    return [
        ClassResult(
            name, {who: values[k] for who, values in known.items()}, k >= len(images.classes)
        )
        for k, name in enumerate(names)
    ]

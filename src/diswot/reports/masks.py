"""What networks for segmentation predict: pictures of masks, and the IoU of each class.

Letters: K classes, H x W pixels.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from diswot.costs.counts import count_macs
from diswot.data.dataset import Dataset
from diswot.models.weights import load_weights
from diswot.observation.rows import IGNORED, resized_logits
from diswot.reports.pictures import picture
from diswot.runs.rebuild import IMAGE_FACTS, RecordedNetworks
from diswot.runs.records import TrainingRecord
from diswot.tasks.registry import task_of
from diswot.tasks.segmentation import class_ious
from diswot.training.evaluation import batch_size, frozen, predict
from diswot.utils.untrusted import Facts

DRAWN = 6  # test images that are drawn with their masks
MEASURED = 20  # test images for the IoU of each class, at most
MAX_MACS = 100e9  # multiply-adds of all predictions, a few seconds on a CPU
VOID_COLOUR = (0.5, 0.5, 0.5)
_GOLDEN = 0.618034  # a turn of the hue by the golden ratio keeps colours apart

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class LegendEntry:
    """A class in the pictures, and its colour as CSS writes it."""

    name: str
    colour: str


@dataclass(frozen=True)
class MaskPictures:
    """A test image with its masks, as data URIs.

    Attributes:
        image: The image.
        masks: The true mask, and the mask that each network predicts, by name.
    """

    image: str
    masks: Mapping[str, str]


@dataclass(frozen=True)
class ClassIou:
    """The IoU of a class in %, by the name of the network; None if the class never occurs."""

    name: str
    percents: Mapping[str, float | None]


@dataclass(frozen=True)
class MaskComparison:
    """Masks that networks predict for some test images.

    Attributes:
        legend: Classes that occur in the pictures.
        void: Whether pixels without a class occur in them.
        pictures: At most `DRAWN` images with their masks.
        ious: A row for each class, and a last one with the mean; empty without a network.
        images: Number of images that the IoUs are measured on.
    """

    legend: list[LegendEntry]
    void: bool
    pictures: list[MaskPictures]
    ious: list[ClassIou]
    images: int

    @property
    def void_colour(self) -> str:
        """Colour of pixels without a class, as CSS writes it."""
        return _css(VOID_COLOUR)


def recorded_masks(
    config: Facts, training: TrainingRecord | None, images: Dataset | None
) -> MaskComparison | None:
    """Compare the masks that the trained networks of a run predict; None without true masks.

    Args:
        config: Configuration of the search; empty without a search.
        training: Training of the student, with its weights; None if it is not trained.
        images: Images of the search, if they are read already.
    """
    result = training.result if training else {}
    facts = {**config, **result}
    recorded = RecordedNetworks(facts)
    if images is None or any(facts.get(name) != config.get(name) for name in IMAGE_FACTS):
        images = recorded.images()
    if images.test is None or images.task != "segmentation":
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
    return compare_masks(images, networks)


def compare_masks(images: Dataset, networks: Mapping[str, nn.Module]) -> MaskComparison:
    """Compare the masks of some test images with those that trained networks predict.

    The images are spread evenly over the test images. There are fewer for costly networks.

    Args:
        images: With test images that have masks.
        networks: Trained networks on the CPU, by name.
    """
    assert images.test is not None
    count = _affordable(images, networks)
    chosen = _spread(len(images.test), count)
    pixels, truth = images.test.read(chosen), images.test.targets(chosen)
    masks, percents = {"truth": truth}, {}
    for name, network in networks.items():
        masks[name], percents[name] = _predicted(images, network, pixels, truth)
    drawn = _spread(count, DRAWN)
    shown = {name: each[drawn] for name, each in masks.items()}
    present = np.unique(torch.stack(list(shown.values())).numpy()).tolist()
    palette = class_colours(len(images.classes))
    return MaskComparison(
        [LegendEntry(images.classes[k], _css(palette[k])) for k in present if k != IGNORED],
        IGNORED in present,
        [
            _drawn(pixels[i], {name: each[i] for name, each in masks.items()}, palette)
            for i in drawn
        ],
        _rows(images.classes, percents),
        count,
    )


def class_colours(classes: int) -> list[Colour]:
    """Return a colour for each of K classes, values of 0 to 1; none of them is grey."""
    return [
        colorsys.hls_to_rgb((0.58 + k * _GOLDEN) % 1, (0.45, 0.65, 0.3)[k // 7 % 3], 0.65)
        for k in range(classes)
    ]


def coloured(mask: Tensor, palette: list[Colour]) -> Tensor:
    """Return a mask as an image, 3 x H x W, values of 0 to 1; pixels without a class are grey.

    Args:
        mask: Class indices, H x W; `IGNORED` for a pixel without a class.
        palette: Colour of each class.
    """
    colours = torch.tensor([*palette, VOID_COLOUR])
    return colours[mask.long()].permute(2, 0, 1)  # IGNORED, -1, is the last


def _affordable(images: Dataset, networks: Mapping[str, nn.Module]) -> int:
    """Return the number of test images whose predictions stay within `MAX_MACS`."""
    assert images.test is not None
    macs = sum(count_macs(network, images.image_shape) for network in networks.values())
    affordable = max(1, int(MAX_MACS // macs)) if macs else MEASURED
    return min(MEASURED, affordable, len(images.test))


def _spread(total: int, count: int) -> list[int]:
    """Return at most `count` of the numbers below `total`, spread evenly."""
    places = torch.linspace(0, total - 1, min(count, total), dtype=torch.float64)
    return [int(place) for place in places.round()]


def _predicted(
    images: Dataset, network: nn.Module, pixels: Tensor, truth: Tensor
) -> tuple[Tensor, list[float]]:
    """Return the predicted masks, and the IoU of each class and their mean in %."""
    task, counts, masks = task_of(images), [], []
    height, width = truth.shape[1:]
    parts = torch.split(torch.arange(len(pixels)), batch_size(images))
    batches = ((pixels[part], truth[part]) for part in parts)
    with frozen(network):
        for logits, targets in predict(network, images, batches):
            counts.append(task.count(logits, targets))
            masks.append(resized_logits(logits, (height, width)).argmax(1))
    total = torch.stack(counts).sum(0)
    return torch.cat(masks), [
        *class_ious(total, len(total)).tolist(),
        task.results(total)[task.result],
    ]


def _rows(classes: tuple[str, ...], percents: Mapping[str, list[float]]) -> list[ClassIou]:
    known = {
        who: [value if math.isfinite(value) else None for value in values]
        for who, values in percents.items()
    }
    names = [*classes, "mean"] if known else []
    return [
        ClassIou(name, {who: values[k] for who, values in known.items()})
        for k, name in enumerate(names)
    ]


def _drawn(pixels: Tensor, masks: Mapping[str, Tensor], palette: list[Colour]) -> MaskPictures:
    shown = {name: picture(coloured(mask, palette), smooth=False) for name, mask in masks.items()}
    return MaskPictures(picture(pixels / 255), shown)


def _css(colour: Colour) -> str:
    return "#" + "".join(f"{round(255 * value):02x}" for value in colour)

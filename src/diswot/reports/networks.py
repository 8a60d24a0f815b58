"""Teacher and students of a search, built again for their sizes and their feature maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diswot.costs.counts import Shape, count, count_depth, count_params, count_trainable
from diswot.data.dataset import Batch, Dataset
from diswot.errors import UserError, one_line
from diswot.knowledge.gradcam import class_activation
from diswot.models.weights import load_weights
from diswot.observation.functional import relation_matrix
from diswot.observation.observe import Observation, observe
from diswot.reports.pictures import evenly_spread, overlay, picture
from diswot.runs.rebuild import RecordedNetworks

SHOWN = 8  # images drawn with class activation maps


@dataclass(frozen=True)
class Sizes:
    """Sizes of a network: parameters, multiply-adds of one image, layers with weights.

    `uncounted` has the names of operations that the multiply-adds leave out.
    """

    params: int
    macs: int
    depth: int
    trainable: int
    uncounted: tuple[str, ...] = ()


@dataclass(frozen=True)
class ActivationMaps:
    """An image with the class activation maps of teacher and student, as data URIs."""

    label: str
    image: str
    teacher: str
    student: str


@dataclass(frozen=True)
class FeatureComparison:
    """Features of teacher and student on one batch, samples in the order of their classes.

    Attributes:
        key: Prefix of the chart ids, `scored` or `trained`.
        title: Which weights the networks have.
        teacher: Relation matrix of the teacher, B x B.
        student: Relation matrix of the student, B x B.
        labels: Class name of each sample; in dense tasks its number, in the order of the batch.
        maps: Class activation maps of at most `SHOWN` samples; none in dense tasks.
    """

    key: str
    title: str
    teacher: list[list[float]]
    student: list[list[float]]
    labels: list[str]
    maps: list[ActivationMaps]


def sizes_of(model: nn.Module, image_shape: Shape) -> Sizes:
    """Return the sizes of a network for images of some channels, height and width."""
    counts, depth = count(model, image_shape), count_depth(model)
    return Sizes(count_params(model), counts.macs, depth, count_trainable(model), counts.uncounted)


def attempt(notes: list[str], what: str, make: Callable[[], Any]) -> Any:
    """Return the result of `make`; if it raises, None, with a note whose subject is `what`.

    Images may be gone, and networks may be a user's own code. The random state is left unchanged.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            return make()
    except UserError as error:
        notes.append(f"{what}: {error}")
    except Exception as error:  # a user's network may raise anything
        notes.append(f"{what}: {one_line(error)}")
    return None


def compare_features(
    networks: RecordedNetworks,
    images: Dataset,
    params: dict[str, Any],
    trained: tuple[str, Path] | None,
) -> list[FeatureComparison]:
    """Compare the features of teacher and student: as trained if weights exist, then as scored."""
    batch = networks.batch(images)
    state = "student and teacher untrained"
    if networks.scored_trained():
        state = "student untrained, teacher trained"
    pair = networks.as_scored(params)
    scored = _features("scored", f"as scored: {state}", *pair, batch, images)
    if trained is not None and Path(trained[0]).is_file():
        teacher, student = networks.teacher(trained[0]), networks.student(params)
        load_weights(student, trained[1])
        title = "trained: the teacher, and the student distilled from it"
        return [_features("trained", title, teacher, student, batch, images), scored]
    return [scored]


def _features(
    key: str, title: str, teacher: nn.Module, student: nn.Module, batch: Batch, images: Dataset
) -> FeatureComparison:
    dense = batch.labels.ndim > 1  # of pixels, or boxes
    if not dense:
        order = batch.labels.argsort(stable=True)
        batch = Batch(batch.images[order], batch.labels[order])
    observed = [observe(model, *batch, cam=not dense) for model in (teacher, student)]
    of_teacher, of_student = (_rounded(relation_matrix(one.last)) for one in observed)
    if dense:
        names, maps = [f"image {i + 1}" for i in range(len(batch.images))], []
    else:
        names = [images.classes[label] for label in batch.labels.tolist()]
        maps = _maps(batch, observed, images, names)
    return FeatureComparison(key, title, of_teacher, of_student, names, maps)


def _maps(
    batch: Batch, observed: list[Observation], images: Dataset, names: list[str]
) -> list[ActivationMaps]:
    """Draw the activation maps of `SHOWN` samples, spread evenly over the classes."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (images.mean, images.std))
    activations = [class_activation(one) for one in observed]
    maps = []
    for i in evenly_spread(len(names), SHOWN):
        pixels = (batch.images[i] * std + mean).clamp(0, 1)
        drawn = (overlay(pixels, activation[i]) for activation in activations)
        maps.append(ActivationMaps(names[i], picture(pixels), *drawn))
    return maps


def _rounded(matrix: Tensor) -> list[list[float]]:
    return [[round(float(value), 4) for value in row] for row in matrix]

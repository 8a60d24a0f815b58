"""Teacher and students of a search, built again for their sizes and their feature maps."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diswot.costs.counts import count_depth, count_macs, count_params
from diswot.data.dataset import Batch, Dataset
from diswot.data.registry import create_dataset
from diswot.errors import UserError
from diswot.knowledge.gradcam import class_activation
from diswot.models.initialization import TEACHER, fresh
from diswot.models.registry import create_teacher
from diswot.models.weights import load_weights
from diswot.observation.functional import relation_matrix
from diswot.observation.observe import Observation, observe
from diswot.proxies.registry import get_proxy
from diswot.reports.pictures import overlay, picture
from diswot.spaces.registry import build_network, create_space

SHOWN = 8  # images drawn with class activation maps

_PRETRAINED = (
    "the teacher was scored with pretrained weights of its library; a report does not download "
    "weights, it only loads weight files (--teacher-weights)"
)


@dataclass(frozen=True)
class Sizes:
    """Sizes of a network.

    Attributes:
        params: Trainable parameters.
        macs: Multiply-adds of one image.
        depth: Trainable layers.
    """

    params: int
    macs: int
    depth: int


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
        labels: Class name of each sample.
        maps: Class activation maps of at most `SHOWN` samples.
    """

    key: str
    title: str
    teacher: list[list[float]]
    student: list[list[float]]
    labels: list[str]
    maps: list[ActivationMaps]


@dataclass(frozen=True)
class RebuiltSearch:
    """Data, teacher and students of a search, built on request from its settings.

    Attributes:
        config: Settings of the search, as recorded in the run folder.
    """

    config: dict[str, Any]

    def images(self) -> Dataset:
        """Load the data set of the search, without any download."""
        root = self.config.get("data_root")
        name = str(self.config["data"])
        size, classes = self.config.get("image_size"), self.config.get("classes")
        images = create_dataset(name, num_classes=classes, img_size=size, root=root, download=False)
        if {"mean", "std"} <= self.config.keys():
            mean, std = tuple(self.config["mean"]), tuple(self.config["std"])
            images = replace(images, mean=mean, std=std)
        return images

    def teacher(self, weights: str | None = None) -> nn.Module:
        """Build the teacher.

        Args:
            weights: Path of a weights file; None for random weights.

        Raises:
            UserError: The file does not exist, or does not fit the teacher.
        """
        classes, size = int(self.config["classes"]), int(self.config["image_size"])
        model = create_teacher(str(self.config["teacher"]), classes, size)
        if weights is not None:
            load_weights(model, weights)
        return model

    def student(self, params: dict[str, Any]) -> nn.Module:
        """Build the student of some parameters."""
        classes, size = int(self.config["classes"]), int(self.config["image_size"])
        build = create_space(str(self.config["space"]), classes, size)
        return build_network(build, params)

    def sizes(self, model: nn.Module) -> Sizes:
        """Count parameters, MACs and depth at the image size of the search."""
        size = int(self.config["image_size"])
        macs = count_macs(model, (3, size, size))
        return Sizes(count_params(model), macs, count_depth(model))

    def batch(self, images: Dataset) -> Batch:
        """Draw the first scoring batch of the search."""
        return images.batch(int(self.config["batch_size"]), self.seed())

    def seed(self) -> int:
        """Return the seed of the search.

        Raises:
            UserError: The run folder does not record the seed.
        """
        if "seed" not in self.config:
            raise UserError("the seed of the search is not recorded in the run folder")
        return int(self.config["seed"])

    def init(self) -> str:
        """Return the initialisation of the search; the default is the one of its score."""
        return str(self.config.get("init") or get_proxy(str(self.config["proxy"])).init)

    def has_trained_teacher(self) -> bool:
        """Return whether trained weights of the teacher entered the score.

        Some scores initialise the teacher afresh.
        """
        row = get_proxy(str(self.config["proxy"]))
        draws = row.compares_early_blocks and self.init() != "default"
        return bool(self.config.get("trained_teacher")) and not draws

    def as_scored(self, params: dict[str, Any]) -> tuple[nn.Module, nn.Module]:
        """Build teacher and student with the weights that they had when scored.

        Args:
            params: Parameters of the student.

        Raises:
            UserError: The teacher had pretrained weights of its library; those are not loaded, as
                that may need a download.
        """
        init, seed = self.init(), self.seed()
        student = fresh(partial(self.student, params), init, seed)
        if not self.has_trained_teacher():
            again = partial(copy.deepcopy, self.teacher())
            return fresh(again, init, seed, 0, TEACHER), student
        if self.config.get("pretrained"):
            raise UserError(_PRETRAINED)
        return self.teacher(str(self.config.get("teacher_weights"))), student


def attempt(notes: list[str], what: str, make: Callable[[], Any]) -> Any:
    """Return the result of `make`, or None with a note if it raises.

    Dataset may be gone, and networks may be a user's own code. The random state is left unchanged.

    Args:
        notes: Receives one line for an error.
        what: Subject of that line.
        make: Builds the result.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            return make()
    except UserError as error:
        notes.append(f"{what}: {error}")
    except Exception as error:  # a user's network may raise anything
        reason = " ".join(str(error).split())
        notes.append(f"{what}: {type(error).__name__}: {reason}")
    return None


def compare_features(
    rebuilt: RebuiltSearch, params: dict[str, Any], trained: tuple[str, Path] | None
) -> list[FeatureComparison]:
    """Compare the features of teacher and student as scored, and as trained.

    Args:
        rebuilt: Teacher and space.
        params: Parameters of the student.
        trained: Weights files of the teacher and of the student distilled from it; None if there
            are none.
    """
    images = rebuilt.images()
    batch = rebuilt.batch(images)
    state = "student and teacher untrained"
    if rebuilt.has_trained_teacher():
        state = "student untrained, teacher trained"
    networks = rebuilt.as_scored(params)
    found = [_features("scored", f"as scored: {state}", *networks, batch, images)]
    if trained is not None and Path(trained[0]).is_file():
        teacher, student = rebuilt.teacher(trained[0]), rebuilt.student(params)
        load_weights(student, trained[1])
        title = "trained: the teacher, and the student distilled from it"
        found.append(_features("trained", title, teacher, student, batch, images))
    return found


def _features(
    key: str, title: str, teacher: nn.Module, student: nn.Module, batch: Batch, images: Dataset
) -> FeatureComparison:
    order = batch.labels.argsort(stable=True)
    batch = Batch(batch.images[order], batch.labels[order])
    observed = [observe(model, *batch, cam=True) for model in (teacher, student)]
    of_teacher, of_student = (_rounded(relation_matrix(one.last)) for one in observed)
    names = [images.classes[label] for label in batch.labels.tolist()]
    maps = _maps(batch, observed, images, names)
    return FeatureComparison(key, title, of_teacher, of_student, names, maps)


def _maps(
    batch: Batch, observed: list[Observation], images: Dataset, names: list[str]
) -> list[ActivationMaps]:
    """Draw the activation maps of `SHOWN` samples, spread evenly over the classes."""
    count = min(SHOWN, len(names))
    chosen = torch.linspace(0, len(names) - 1, count).round().long().tolist()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (images.mean, images.std))
    activations = [class_activation(one) for one in observed]
    maps = []
    for i in chosen:
        pixels = (batch.images[i] * std + mean).clamp(0, 1)
        drawn = (overlay(pixels, activation[i]) for activation in activations)
        maps.append(ActivationMaps(names[i], picture(pixels), *drawn))
    return maps


def _rounded(matrix: Tensor) -> list[list[float]]:
    return [[round(float(value), 4) for value in row] for row in matrix]

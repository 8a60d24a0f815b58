"""Teacher and student of a search, made again: their sizes, and what they see on one batch."""

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
from diswot.data.dataset import Batch, Data
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

SHOWN = 8  # images with class activation maps

_PRETRAINED = (
    "the teacher was scored with its library's pretrained weights, which a report does not load, "
    "for that may need a network; weights of a file (--teacher-weights) it does load"
)


@dataclass(frozen=True)
class Sizes:
    """Trainable parameters, multiply-adds of one image, trainable layers."""

    params: int
    macs: int
    depth: int


@dataclass(frozen=True)
class Map:
    """An image and where both networks look for its label, as data URIs."""

    label: str
    image: str
    teacher: str
    student: str


@dataclass(frozen=True)
class Look:
    """What teacher and student show on one batch.

    Attributes:
        key: Of this state of the two networks.
        title: Which weights they have.
        teacher: Relation matrix, B x B, samples in the order of their classes.
        student: The student's.
        labels: Class names of the samples in that order.
        maps: Class activation maps of some of them.
    """

    key: str
    title: str
    teacher: list[list[float]]
    student: list[list[float]]
    labels: list[str]
    maps: list[Map]


@dataclass(frozen=True)
class Pair:
    """Teacher and space of a search, and its data; made when first asked for.

    Attributes:
        config: How the search was told to go.
    """

    config: dict[str, Any]

    def images(self) -> Data:
        """The data of the search; nothing is downloaded."""
        root = self.config.get("data_root")
        name = str(self.config["data"])
        size, classes = self.config.get("image_size"), self.config.get("classes")
        images = create_dataset(name, classes=classes, size=size, root=root, download=False)
        if {"mean", "std"} <= self.config.keys():
            mean, std = tuple(self.config["mean"]), tuple(self.config["std"])
            images = replace(images, mean=mean, std=std)
        return images

    def teacher(self, weights: str | None = None) -> nn.Module:
        """The teacher, with its weights of a file if one is named, else freshly built.

        Raises:
            UserError: The file is not there, or does not fit.
        """
        classes, size = int(self.config["classes"]), int(self.config["image_size"])
        model = create_teacher(str(self.config["teacher"]), classes, size)
        if weights is not None:
            load_weights(model, weights)
        return model

    def student(self, params: dict[str, Any]) -> nn.Module:
        """The network of some parameters."""
        classes, size = int(self.config["classes"]), int(self.config["image_size"])
        build = create_space(str(self.config["space"]), classes, size)
        return build_network(build, params)

    def sizes(self, model: nn.Module) -> Sizes:
        """Of a network, on images of the search's size."""
        size = int(self.config["image_size"])
        macs = count_macs(model, (3, size, size))
        return Sizes(count_params(model), macs, count_depth(model))

    def batch(self, images: Data) -> Batch:
        """The first scoring batch of the search."""
        return images.batch(int(self.config["batch_size"]), self.seed())

    def seed(self) -> int:
        """The user's.

        Raises:
            UserError: It was not recorded.
        """
        if "seed" not in self.config:
            raise UserError("the seed of the search is not recorded in the run folder")
        return int(self.config["seed"])

    def init(self) -> str:
        """How candidates were initialised: as told, else as the score has it."""
        return str(self.config.get("init") or get_proxy(str(self.config["proxy"])).init)

    def taught(self) -> bool:
        """Whether the teacher was scored with trained weights: some scores draw fresh ones."""
        row = get_proxy(str(self.config["proxy"]))
        draws = row.compares_early_blocks and self.init() != "default"
        return bool(self.config.get("trained_teacher")) and not draws

    def scored(self, params: dict[str, Any]) -> tuple[nn.Module, nn.Module]:
        """Teacher and student with the weights that they were scored with.

        A library's pretrained weights are not loaded: that may need a network.
        """
        init, seed = self.init(), self.seed()
        student = fresh(partial(self.student, params), init, seed)
        if not self.taught():
            again = partial(copy.deepcopy, self.teacher())
            return fresh(again, init, seed, 0, TEACHER), student
        if self.config.get("pretrained"):
            raise UserError(_PRETRAINED)
        return self.teacher(str(self.config.get("teacher_weights"))), student


def attempt(notes: list[str], what: str, make: Callable[[], Any]) -> Any:
    """What `make` returns, or None and a note: data may be gone, and code may be another's."""
    try:
        with torch.random.fork_rng(devices=[]):
            return make()
    except UserError as error:
        notes.append(f"{what}: {error}")
    except Exception as error:  # whatever a user's network raises is told in one line
        reason = " ".join(str(error).split())
        notes.append(f"{what}: {type(error).__name__}: {reason}")
    return None


def looks(pair: Pair, params: dict[str, Any], trained: tuple[str, Path] | None) -> list[Look]:
    """What both networks show as they were scored, and trained.

    Args:
        pair: Teacher and space.
        params: The student's.
        trained: Files of the teacher's weights and of the student's that it taught; None where
            there are none.
    """
    images = pair.images()
    batch = pair.batch(images)
    teacher = "the student untrained, the teacher trained"
    title = f"as scored: {teacher if pair.taught() else 'student and teacher untrained'}"
    found = [_look("scored", title, *pair.scored(params), batch, images)]
    if trained is not None and Path(trained[0]).is_file():
        student = pair.student(params)
        load_weights(student, trained[1])
        title = "trained: the teacher, and the student distilled from it"
        found.append(_look("trained", title, pair.teacher(trained[0]), student, batch, images))
    return found


def _look(
    key: str, title: str, teacher: nn.Module, student: nn.Module, batch: Batch, images: Data
) -> Look:
    order = batch.labels.argsort(stable=True)
    batch = Batch(batch.images[order], batch.labels[order])
    seen = [observe(model, *batch, cam=True) for model in (teacher, student)]
    ours, theirs = (_rounded(relation_matrix(one.last)) for one in seen)
    names = [images.classes[label] for label in batch.labels.tolist()]
    return Look(key, title, ours, theirs, names, _maps(batch, seen, images, names))


def _maps(batch: Batch, seen: list[Observation], images: Data, names: list[str]) -> list[Map]:
    """Of samples spread over the classes."""
    count = min(SHOWN, len(names))
    chosen = torch.linspace(0, len(names) - 1, count).round().long().tolist()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (images.mean, images.std))
    activations = [class_activation(one) for one in seen]
    maps = []
    for i in chosen:
        pixels = (batch.images[i] * std + mean).clamp(0, 1)
        drawn = (overlay(pixels, activation[i]) for activation in activations)
        maps.append(Map(names[i], picture(pixels), *drawn))
    return maps


def _rounded(matrix: Tensor) -> list[list[float]]:
    return [[round(float(value), 4) for value in row] for row in matrix]

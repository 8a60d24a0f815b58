"""Sizes of the networks of a search, and what teacher and student see on one batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diswot.costs.counts import count_depth, count_macs, count_params
from diswot.data.dataset import Batch, Data
from diswot.errors import UserError
from diswot.knowledge.gradcam import class_activation
from diswot.models.weights import load_weights
from diswot.observation.functional import relation_matrix
from diswot.observation.observe import Observation, observe
from diswot.reports.pictures import overlay, picture
from diswot.runs.rebuild import RecordedNetworks

SHOWN = 8  # images with class activation maps


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


def sizes_of(model: nn.Module, image_size: int) -> Sizes:
    """Return the sizes of a network for images of some height and width in pixels."""
    macs = count_macs(model, (3, image_size, image_size))
    return Sizes(count_params(model), macs, count_depth(model))


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


def looks(
    networks: RecordedNetworks, params: dict[str, Any], trained: tuple[str, Path] | None
) -> list[Look]:
    """Return what both networks show as they were scored, and trained.

    Args:
        networks: Teacher and students of the search.
        params: Parameters of the student.
        trained: Files of the teacher's weights and of the weights of the student that it taught;
            None without such a training.
    """
    images = networks.images()
    batch = networks.batch(images)
    teacher = "the student untrained, the teacher trained"
    title = (
        f"as scored: {teacher if networks.scored_trained() else 'student and teacher untrained'}"
    )
    found = [_look("scored", title, *networks.as_scored(params), batch, images)]
    if trained is not None and Path(trained[0]).is_file():
        student = networks.student(params)
        load_weights(student, trained[1])
        title = "trained: the teacher, and the student distilled from it"
        found.append(_look("trained", title, networks.teacher(trained[0]), student, batch, images))
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

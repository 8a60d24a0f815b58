"""The images and networks of a run folder, built again from what it records.

Nothing is downloaded. A network of a user's own file runs that file.
"""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from diswot.data.dataset import Batch, Dataset
from diswot.data.registry import create_dataset
from diswot.errors import UserError
from diswot.models.initialization import INHERITED, TEACHER, fresh
from diswot.models.registry import create_teacher, teacher_builder
from diswot.models.weights import load_weights
from diswot.proxies.registry import get_proxy
from diswot.runs import folder as run_folder
from diswot.spaces.registry import Params, build_network, create_space
from diswot.storage.run_files import DISTILLED, RUN, TRAINED
from diswot.tasks.registry import find_result
from diswot.training.checkpoint import WEIGHTS
from diswot.utils.untrusted import Facts

_PRETRAINED = (
    "the teacher was scored with its library's pretrained weights, which are not loaded again, "
    "since that may need a download; weights of a file (--teacher-weights) are"
)

# facts of a training
IMAGE_FACTS = ("data", "data_root", "classes", "image_size", "image_width", "task", "mean", "std")


def student_builder(
    student: Params | str, space: str, classes: int, image_size: int, *, pretrained: bool = False
) -> Callable[[], nn.Module]:
    """Return a function that builds a student of K classes and square images.

    The student is a network's name, or parameters of an architecture of the space.

    Raises:
        UserError: A name is unknown. The function raises it for parameters that do not fit.
    """
    if isinstance(student, str):
        return teacher_builder(student, classes, image_size, pretrained=pretrained)
    return partial(build_network, create_space(space, classes, image_size), student)


@dataclass(frozen=True)
class RecordedNetworks:
    """The images, the teacher and the students of a run; each is built when it is asked for.

    They are rebuilt from the configuration of a search, or the result of a training.
    """

    config: Facts

    @property
    def classes(self) -> int:
        """Number of classes, K."""
        return int(self.config["classes"])

    @property
    def image_size(self) -> int:
        """Height of the images in pixels, and width if they are square."""
        return int(self.config["image_size"])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return 3, self.image_size, int(self.config.get("image_width") or self.image_size)

    def images(self) -> Dataset:
        """Return the images, normalised as recorded.

        Raises:
            UserError: They are not recorded, or not there any more.
        """
        if "data" not in self.config:
            raise UserError("the run does not record its images")
        root = self.config.get("data_root")
        name, task = str(self.config["data"]), self.config.get("task")
        size, classes = self.config.get("image_size"), self.config.get("classes")
        given = {"num_classes": classes, "img_size": size, "task": task}
        images = create_dataset(name, **given, root=root, download=False)
        mean, std = self.config.get("mean"), self.config.get("std")
        return replace(images, mean=tuple(mean or images.mean), std=tuple(std or images.std))

    def batch(self, images: Dataset) -> Batch:
        """Return the first batch that the candidates were scored on."""
        return images.batch(int(self.config["batch_size"]), self.seed())

    def teacher(self, weights: str | Path | None = None) -> nn.Module:
        """Return the teacher with its weights of a file, or freshly built without a file.

        Raises:
            UserError: The file is missing, or does not fit.
        """
        model = create_teacher(str(self.config["teacher"]), self.classes, self.image_size)
        if weights is not None:
            load_weights(model, weights)
        return model

    def student(self, student: Params | str) -> nn.Module:
        """Return a student by its parameters or name, freshly built."""
        return self._builder(student)()

    def _builder(self, student: Params | str) -> Callable[[], nn.Module]:
        space = str(self.config.get("space"))
        return student_builder(student, space, self.classes, self.image_size)

    def seed(self) -> int:
        """Return the user's seed.

        Raises:
            UserError: It is not recorded.
        """
        if "seed" not in self.config:
            raise UserError("the seed of the search is not recorded in the run folder")
        return int(self.config["seed"])

    def init(self) -> str:
        """Return the initialisation of the scored networks: the user's, or else the score's."""
        return str(self.config.get("init") or get_proxy(str(self.config["proxy"])).init)

    def scored_trained(self) -> bool:
        """Say whether the score used the teacher's trained weights; some scores draw fresh ones."""
        row = get_proxy(str(self.config["proxy"]))
        draws = row.redraws_teacher and self.init() not in ("default", INHERITED)
        return bool(self.config.get("trained_teacher")) and not draws

    def as_scored(self, params: Params) -> tuple[nn.Module, nn.Module]:
        """Return the teacher and a student with the weights that they were scored with.

        Raises:
            UserError: The weights were a library's, or are not there any more.
        """
        init, seed = self.init(), self.seed()
        student = fresh(self._builder(params), init, seed)
        if not self.scored_trained():
            again = partial(copy.deepcopy, self.teacher())
            return fresh(again, init, seed, 0, TEACHER), student
        if self.config.get("pretrained"):
            raise UserError(_PRETRAINED)
        teacher = self.teacher(self.config.get("teacher_weights"))
        if init == INHERITED:
            from diswot.models.inheritance import inherit  # loads the compiler of torch

            with contextlib.suppress(UserError):  # nothing fits, and the score used fresh weights
                inherit(teacher, student)
        return teacher, student


@dataclass(frozen=True)
class RecordedStudent:
    """A student that a search found or a training trained, with facts for a model card.

    It is named, or has parameters of an architecture. `training` is the result of the training in
    `folder`; None without one.
    """

    student: Params | str
    networks: RecordedNetworks
    facts: Mapping[str, Any]
    training: Facts | None
    folder: Path
    found: bool

    def network(self) -> nn.Module:
        """Return the network: with its trained weights, or freshly initialised without any."""
        config = self.networks.config
        build = partial(self.networks.student, self.student)
        model = fresh(build, "default", int(config.get("seed", 0)))
        if self.training is not None:
            load_weights(model, self.folder / WEIGHTS)
        return model


def recorded_teacher(run: Path, facts: Facts) -> nn.Module:
    """Return the teacher of a search or of a training, as the folder `run` records it.

    Raises:
        UserError: It is not recorded, its weights are a library's, or a file is missing.
    """
    if missing := [n for n in ("teacher", "classes", "image_size") if not facts.get(n)]:
        raise UserError(f"{run} does not record its {missing[0]}")
    if facts.get("pretrained"):
        raise UserError(_PRETRAINED)
    return RecordedNetworks(facts).teacher(facts.get("teacher_weights"))


def recorded_student(run: Path, trained: Path | None = None) -> RecordedStudent:
    """Return the student that a search found, or the one that a training trained.

    The training of a search's student is by default in the folder `distilled` of the run.

    Raises:
        UserError: The run is unfinished, damaged, or the training is of another student.
    """
    if run_folder.is_training(run):
        if trained is not None:
            raise UserError(f"{run} is a training itself; leave --trained out")
        return _of_training(run)
    return _of_search(run, trained)


def _of_search(run: Path, trained: Path | None) -> RecordedStudent:
    config, folder = run_folder.search_config(run), trained or run / DISTILLED
    if missing := [n for n in ("space", "classes", "image_size") if n not in config]:
        raise UserError(
            f"the search in {run} does not record its {missing[0]}, since its space is no space of "
            "create_space; StudySettings(facts=...) may name them"
        )
    student = json.loads(config["student"])
    there = trained is not None or (folder / WEIGHTS).is_file()
    result = _tested(folder) if there else None
    if result is not None and result.get("student") != student:
        raise UserError(
            f"{folder} holds the training of another student than the one found in {run}; "
            f"diswot export {folder} takes that one"
        )
    if result is not None:  # the training may be on other images
        config = {**config, **{name: result[name] for name in IMAGE_FACTS if name in result}}
    facts = {name: config.get(name) for name in ("data", "teacher", "space")}
    facts["search"] = run_folder.command(run / RUN)
    return RecordedStudent(student, RecordedNetworks(config), facts, result, folder, True)


def _of_training(folder: Path) -> RecordedStudent:
    result = _tested(folder)
    known = {"student", "classes", "image_size", "data"} <= result.keys()
    if not known or not isinstance(result["student"], str | dict):
        raise UserError(f"{folder}/{TRAINED} does not tell enough to build the network again")
    facts = {name: result.get(name) for name in ("data", "space")}
    facts["search"] = result.get("search") or "none recorded: the network was named"
    facts["training"] = run_folder.command(folder / TRAINED)
    found = bool(result.get("search"))
    return RecordedStudent(
        result["student"], RecordedNetworks(result), facts, result, folder, found
    )


def _tested(folder: Path) -> Facts:
    """Return the result of a training, which must have a test result."""
    result = run_folder.training_result(folder)
    if find_result(result) is None:
        raise UserError(f"{folder}/{TRAINED} is not what diswot writes")
    return result

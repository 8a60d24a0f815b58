"""The teacher, the student and the images that a command's options name."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diswot.cli import score_names
from diswot.cli.options import TeacherOptions
from diswot.errors import UserError, unknown
from diswot.utils import user_code

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from diswot.cli.options import DataOptions, ScoringOptions
    from diswot.data.dataset import Batch, Dataset
    from diswot.models.preprocessing import Channels, InputConfig


_THREE = "three numbers with commas, or one, on the scale 0 to 1"
_ROOTED = ("cifar10", "cifar100", "imagenet16-120")


def data_from_root(name: str) -> str:
    """Return the name of a data set, with a path made absolute, so that a run resumes anywhere."""
    from diswot.data.registry import SETS

    is_path = name not in SETS and os.path.exists(name)
    return user_code.absolute(name) if is_path else user_code.rooted(name)


def absolute(path: str | Path | None) -> str | None:
    """Return an absolute path as text; None for None."""
    return None if path is None else str(Path(path).resolve())


def network_name(name: str, kind: str) -> str:
    """Return the name of a teacher or student network."""
    from diswot.models.registry import TEACHERS, is_name

    if not is_name(name):
        raise unknown(kind, name, [*TEACHERS, "parameters as JSON", "timm:NAME", "file.py:NAME"])
    return name


@dataclass(frozen=True)
class NamedImages:
    """Images by name, as `DataOptions` names them, with mean and deviation as numbers of 0 to 1."""

    name: str
    classes: int | None = None
    size: int | None = None
    root: str | Path | None = None
    mean: Channels | None = None
    std: Channels | None = None
    task: str | None = None

    def load(self, network: str | None = None, *, pretrained: bool = False) -> Dataset:
        """Load the images, with the size and normalisation of a network as the defaults."""
        from diswot.data.registry import create_dataset
        from diswot.models import registry as models
        from diswot.models.preprocessing import InputConfig

        name, classes, root = self.name, self.classes, self.root
        if root is not None and name not in _ROOTED:
            raise UserError(f"--data-root goes with {', '.join(_ROOTED)}, not with {name}")
        wants = models.input_config(network, pretrained) if network else InputConfig()
        size = wants.img_size if self.size is None else self.size
        images = create_dataset(
            data_from_root(name), num_classes=classes, img_size=size, root=root, task=self.task
        )
        if classes is not None and classes != len(images.classes):
            raise UserError(f"{name} has {len(images.classes)} classes, not {classes}")
        _check_task(self.task, images)
        return self.normalised(images, wants)

    def normalised(self, images: Dataset, wants: InputConfig) -> Dataset:
        """Return images with the normalisation of the user, or else of the network or the data."""
        mean, std = self.mean or wants.mean or images.mean, self.std or wants.std or images.std
        return replace(images, mean=tuple(mean), std=tuple(std))


def _check_task(task: str | None, images: Dataset) -> None:
    """Refuse an unknown task, and one that the data does not have."""
    from diswot.tasks.registry import TASKS

    if task is not None and task not in TASKS:
        raise unknown("task", task, TASKS)
    if task not in (None, images.task):
        raise UserError(f"{images.name} is data for {images.task}, not for {task}")


def normalisation(mean: str | None, std: str | None) -> dict[str, Channels | None]:
    """Return the values of `--mean` and `--std`, which only go together."""
    if (mean is None) != (std is None):
        raise UserError("give --mean and --std together")
    return {"mean": _channels(mean, "mean"), "std": _channels(std, "std")}


def _channels(text: str | None, option: str) -> Channels | None:
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise UserError(f"--{option} {text!r} is not {_THREE}") from error
    if len(values) not in (1, 3) or not all(0 <= value <= 1 for value in values):
        raise UserError(f"--{option} {text!r} is not {_THREE}")
    if option == "std" and not all(values):
        raise UserError(f"--std {text!r} has a zero, and images are divided by it")
    return values * 3 if len(values) == 1 else values


@dataclass(frozen=True)
class NamedTeacher:
    """A teacher that options name, and the images that the teacher and all students see.

    The images are `sized` if the user named their size.
    """

    options: TeacherOptions
    images: Dataset
    sized: bool

    @property
    def trained(self) -> bool:
        """Whether the teacher has trained weights."""
        return self.options.has_weights

    def model(self) -> nn.Module:
        """Build the network with the classes of the images, and with its weights."""
        from diswot.models.registry import input_config

        name, images, pretrained = self.options.teacher, self.images, self.options.pretrained
        count, trained = len(images.classes), input_config(name, pretrained).num_classes
        if trained is not None and trained != count:
            raise UserError(
                f"{name} was trained for {trained} classes, and {images.name} has {count}: train "
                f"it on them first (diswot distill --student {name} --pretrained --teacher none), "
                "or leave --pretrained out, and its head is made for the data"
            )
        return built_teacher(self.options, images, count)

    def model_for(self, proxies: Sequence[str], init: str | None) -> nn.Module | None:
        """Build the network if one of the scores needs a teacher; otherwise return None."""
        score_names.check_trained(proxies, init, trained=self.trained)
        return self.model() if score_names.needs_teacher(proxies, init) else None

    def remarks(self, proxies: Sequence[str] = (), init: str | None = None) -> list[str]:
        """Return notes on what a user may not expect of the teacher, alone or in some scores."""
        from diswot.models import registry as models
        from diswot.proxies.registry import get_proxy, inherits
        from diswot.runs import folder

        notes, size, name = [], self.images.size, self.options.teacher
        wants = models.input_config(name, self.options.pretrained)
        if not self.sized and wants.img_size is not None:
            pixels = f"{size} x {size} pixels"
            notes.append(f"images are resized to {pixels}, the size of {name}; see --image-size")
        learnt = folder.recorded_classes(self.options.teacher_weights)
        if learnt is not None and learnt != list(self.images.classes):
            other = next((name for name in learnt if name not in self.images.classes), None)
            which = "in another order" if other is None else f"such as {other}"
            notes.append(f"the teacher was trained on other classes than the data's, {which}")
        if not self.trained or inherits(proxies, init):
            return [*notes, *score_names.default_teacher(self.options, proxies, init)]
        rows = {name: get_proxy(name) for name in proxies}
        fresh = [name for name, row in rows.items() if row.redraws_teacher]
        unused = [name for name, row in rows.items() if not row.uses_teacher]
        if fresh:
            notes.append(
                f"the teacher's trained weights change nothing in {', '.join(fresh)}, for which "
                "fresh weights are drawn"
            )
        elif proxies and len(unused) == len(rows):
            notes.append(f"no teacher is needed for {', '.join(unused)}, so its weights are unused")
        return notes


def named_teacher(teacher: TeacherOptions, data: DataOptions) -> NamedTeacher:
    """Return the teacher and the images that the options name."""
    images = images_of({**asdict(data), **normalisation(data.mean, data.std)})
    return teacher_of(images, teacher)


def check_one_source(teacher: TeacherOptions) -> None:
    """Refuse weights that are named twice, and a function that is no user's own."""
    if teacher.pretrained + teacher.trained + (teacher.teacher_weights is not None) > 1:
        raise UserError("give --pretrained, --trained or --teacher-weights, not both")
    if teacher.trained and not user_code.is_spec(teacher.teacher):
        raise UserError(
            "--trained is for a function FILE.py:NAME that loads its weights, not for "
            f"{teacher.teacher}"
        )


def teacher_of(images: NamedImages, teacher: TeacherOptions) -> NamedTeacher:
    """Load the images, and return them with their teacher."""
    check_one_source(teacher)
    loaded = images.load(teacher.teacher, pretrained=teacher.pretrained)
    return NamedTeacher(teacher, loaded, images.size is not None)


def scoring_batches(images: Dataset, scoring: ScoringOptions) -> list[Batch]:
    """Return one batch for each repeat."""
    if scoring.repeats < 1:
        raise UserError(f"repeats must be at least 1, not {scoring.repeats}")
    size, seed = scoring.batch_size, scoring.seed
    return [images.batch(size, seed, repeat) for repeat in range(scoring.repeats)]


def built_teacher(teacher: TeacherOptions, images: Dataset, classes: int) -> nn.Module:
    """Build a teacher, with its trained weights if there are any.

    The weights that it begins with are always the same ones. Scores draw most of them again, but
    not the parameters that belong to no layer, such as positional embeddings. The logits are as
    many as `classes`, which may be others than those of the images.
    """
    import torch

    from diswot.models import registry as models
    from diswot.models.initialization import TEACHER, fresh
    from diswot.models.weights import load_weights
    from diswot.training.evaluation import check_fit, frozen

    name, pretrained = teacher.teacher, teacher.pretrained
    build = models.teacher_builder(name, classes, images.size, pretrained=pretrained)
    model = fresh(build, "default", 0, role=TEACHER)
    if teacher.teacher_weights is not None:
        load_weights(model, teacher.teacher_weights)
    own = None if classes == len(images.classes) else range(classes)
    with frozen(model):
        check_fit("teacher", model, images, torch.device("cpu"), own)
    return model


def named_student(
    text: str, space: str, images: Dataset, *, pretrained: bool = False
) -> tuple[Callable[[], nn.Module], Any]:
    """Return a function that builds a student, and the student's parameters or name.

    The text is a network's name, which may start from its library's weights, or parameters of the
    space as JSON.
    """
    from diswot.runs.rebuild import student_builder

    shape = len(images.classes), images.size
    if not is_architecture(text):
        network_name(text, "student")
        return student_builder(text, space, *shape, pretrained=pretrained), text
    if pretrained:
        raise UserError("--pretrained is for a teacher or a student of a library, as timm:NAME")
    try:
        params = json.loads(text)
    except ValueError as error:
        raise UserError(f"the student's parameters are not JSON: {error}") from error
    build = student_builder(params, space, *shape)
    build()
    return build, params


def is_architecture(student: str) -> bool:
    """Say whether a student is given by parameters as JSON, not by a name."""
    return student.lstrip().startswith("{")


def teacher_facts(teacher: TeacherOptions) -> dict[str, Any]:
    """Return what the options name of a teacher, with absolute paths, for a run folder."""
    return {
        "teacher": user_code.rooted(teacher.teacher),
        "teacher_weights": absolute(teacher.teacher_weights),
        "pretrained": teacher.pretrained,
        **({"trained": True} if teacher.trained else {}),
    }


def teacher_options(config: Mapping[str, Any]) -> TeacherOptions:
    """Return the teacher of a configuration, as `teacher_facts` writes it."""
    name, weights = config["teacher"], config.get("teacher_weights")
    place = None if weights is None else Path(weights)
    return TeacherOptions(name, place, bool(config.get("pretrained")), bool(config.get("trained")))


def image_facts(data: DataOptions) -> dict[str, Any]:
    """Return what the options name of images, with absolute paths, for a run folder."""
    return {
        **normalisation(data.mean, data.std),
        "data": data_from_root(data.data),
        "data_root": absolute(data.data_root),
        "classes": data.classes,
        "image_size": data.image_size,
        **({"task": data.task} if data.task else {}),
    }


def images_of(config: Mapping[str, Any]) -> NamedImages:
    """Return the images of a configuration, as `image_facts` writes it.

    Raises:
        UserError: A search from Python has recorded none.
    """
    if "data" not in config:
        raise UserError("the run does not record its images; name them with --data")
    names = ("classes", "image_size", "data_root", "mean", "std", "task")
    return NamedImages(config["data"], *(config.get(name) for name in names))

"""What is named on the command line, made: data, batches, teachers, students."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diswot.errors import UserError, unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from diswot.data.dataset import Batch, Dataset
    from diswot.models.preprocessing import Channels


_ROOTED = ("cifar10", "cifar100", "imagenet16-120")
_THREE = "three numbers with commas, or one, on the scale 0 to 1"


def from_root(name: str) -> str:
    """A name that is a path, from the root on, so that a run goes on from any folder."""
    from diswot.data.registry import SETS
    from diswot.utils import user_code

    prefix, _, inner = name.partition(":")
    if prefix == "hf" and inner and Path(inner).is_dir():
        return f"hf:{user_code.absolute(inner)}"
    is_path = user_code.is_spec(name) or (name not in SETS and bool(name) and Path(name).exists())
    return user_code.absolute(name) if is_path else name


def data_set(
    name: str,
    classes: int | None,
    size: int | None,
    root: str | Path | None,
    *,
    network: str | None = None,
    pretrained: bool = False,
    mean: Channels | None = None,
    std: Channels | None = None,
) -> Dataset:
    """The data of that name, of the size and normalised as was asked for or the network wants.

    Args:
        name: As `data.get` knows it.
        classes: For noise and downsampled ImageNet, and else a check.
        size: S; if not given, the network's where it has one, else the data's own.
        root: Where CIFAR lies.
        network: Name of the teacher, or of another network that is to see the images.
        pretrained: Whether that network comes with its library's weights.
        mean: Of the channels, instead of the network's or the data's; with `std`.
        std: What each channel is divided by.

    Raises:
        UserError: One is unknown, or the data is not of so many classes.
    """
    from diswot.data.registry import create_dataset
    from diswot.models import registry as teachers
    from diswot.models.preprocessing import InputConfig

    if root is not None and name not in _ROOTED:
        raise UserError(f"--data-root goes with {', '.join(_ROOTED)}; {name} says where it is")
    wants = teachers.input_config(network, pretrained) if network else InputConfig()
    size = wants.img_size if size is None else size
    images = create_dataset(from_root(name), num_classes=classes, img_size=size, root=root)
    if classes is not None and classes != len(images.classes):
        raise UserError(f"{name} has {len(images.classes)} classes, not {classes}")
    mean, std = mean or wants.mean or images.mean, std or wants.std or images.std
    return replace(images, mean=mean, std=std)


def channels(text: str | None, what: str) -> Channels | None:
    """Read `--mean` or `--std`.

    Raises:
        UserError: It is no such numbers.
    """
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise UserError(f"--{what} {text!r} is not {_THREE}") from error
    if len(values) not in (1, 3) or not all(0 <= value <= 1 for value in values):
        raise UserError(f"--{what} {text!r} is not {_THREE}")
    if what == "std" and not all(values):
        raise UserError(f"--std {text!r} has a zero, and images are divided by it")
    return values * 3 if len(values) == 1 else values


def normalisation(mean: str | None, std: str | None) -> dict[str, Channels | None]:
    """Both options, as `data_set` takes them; only together do they make sense."""
    if (mean is None) != (std is None):
        raise UserError("give --mean and --std together")
    return {"mean": channels(mean, "mean"), "std": channels(std, "std")}


def look(images: Dataset) -> dict[str, Any]:
    """How images are shown to all networks, for a run folder."""
    return {"image_size": images.size, "mean": list(images.mean), "std": list(images.std)}


@dataclass(frozen=True)
class Master:
    """A teacher by name, and the images that it and all students see.

    Attributes:
        name: Of the teacher.
        weights: File of its trained weights.
        pretrained: Whether it comes with its library's.
        images: Of the size and normalised as was asked for, or as it wants them.
        sized: Whether the user named the size.
    """

    name: str
    weights: str | Path | None
    pretrained: bool
    images: Dataset
    sized: bool

    @property
    def trained(self) -> bool:
        """Whether it has trained weights."""
        return self.pretrained or self.weights is not None

    def model(self) -> nn.Module:
        """The network."""
        return teaching(self.name, self.images, self.weights, pretrained=self.pretrained)

    def remarks(self, proxies: Sequence[str] = ()) -> list[str]:
        """What a user may not expect: the size of images, and weights that change no score."""
        from diswot.models import registry as teachers
        from diswot.proxies.registry import get_proxy

        said, size = [], self.images.size
        if (
            not self.sized
            and teachers.input_config(self.name, self.pretrained).img_size is not None
        ):
            pixels, name = f"{size} x {size} pixels", self.name
            said.append(f"images are brought to {pixels}, as {name} takes them; see --image-size")
        rows = {name: get_proxy(name) for name in proxies}
        deaf = [name for name, row in rows.items() if row.compares_early_blocks]
        if self.trained and deaf:
            names, fresh = ", ".join(deaf), "it draws fresh ones"
            said.append(f"the teacher's trained weights change nothing in {names}: {fresh}")
        return said


def master(
    teacher: str,
    weights: str | Path | None,
    pretrained: bool,
    data: str,
    classes: int | None,
    size: int | None,
    root: str | Path | None,
    *,
    mean: Channels | None,
    std: Channels | None,
) -> Master:
    """The teacher and the images of a command, from its options.

    Raises:
        UserError: As `data_set`.
    """
    images = data_set(
        data, classes, size, root, network=teacher, pretrained=pretrained, mean=mean, std=std
    )
    return Master(teacher, weights, pretrained, images, size is not None)


def scoring_batches(images: Dataset, size: int, repeats: int, seed: int) -> list[Batch]:
    """One batch a repeat."""
    if repeats < 1:
        raise UserError(f"repeats must be at least 1, not {repeats}")
    return [images.batch(size, seed, repeat) for repeat in range(repeats)]


def teaching(
    name: str, images: Dataset, weights: str | Path | None, *, pretrained: bool = False
) -> nn.Module:
    """A teacher that fits the images, with its trained weights if there are any.

    Raises:
        UserError: It does not fit the images; both are named.
    """
    import torch

    from diswot.models import registry as teachers
    from diswot.models.registry import create_teacher
    from diswot.models.weights import load_weights
    from diswot.training.evaluation import check_fit, frozen

    count = len(images.classes)
    if pretrained and weights is not None:
        raise UserError("give --pretrained or --teacher-weights, not both")
    trained = teachers.input_config(name, pretrained).num_classes
    if trained is not None and trained != count:
        raise UserError(
            f"{name} was trained for {trained} classes, and {images.name} has {count}: train it "
            f"on them first (diswot distill --student {name} --pretrained --teacher none), or "
            "leave --pretrained out, and its head is made for the data"
        )
    model = create_teacher(name, count, images.size, pretrained=pretrained)
    if weights is not None:
        load_weights(model, weights)
    with frozen(model):
        check_fit("teacher", model, images, torch.device("cpu"))
    return model


def student_builder(
    text: str, space: str, classes: int, image_size: int, *, pretrained: bool = False
) -> tuple[Callable[[], nn.Module], Any]:
    """How to build a student named by a JSON dict of parameters, or as teachers are.

    With `pretrained` it starts from its library's weights, with a fresh head for other classes.

    Returns:
        A function of nothing, and the parameters or the name.
    """
    from diswot.models.registry import TEACHERS, is_name, teacher_builder
    from diswot.spaces.registry import build_network, create_space

    if not text.lstrip().startswith("{"):
        if not is_name(text):
            raise unknown("student", text, [*TEACHERS, "parameters as JSON", "timm:NAME"])
        return teacher_builder(text, classes, image_size, pretrained=pretrained), text
    if pretrained:
        raise UserError("--pretrained is for a teacher or a student of a library, as timm:NAME")
    try:
        params = json.loads(text)
    except ValueError as error:
        raise UserError(f"the student's parameters are no JSON: {error}") from error
    build = create_space(space, classes, image_size)
    build_network(build, params)
    return partial(build_network, build, params), params

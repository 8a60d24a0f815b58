"""The trained teacher of a distillation: its weights, its classes and the size of its images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from diswot.cli import inputs
from diswot.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from diswot.data.dataset import Dataset


class MatchedTeacher(NamedTuple):
    """A trained teacher.

    Attributes:
        model: The network. Its outputs whose class the data lacks are cut off, unless all are.
        classes: Class of the data of each output, -1 for none; None if the outputs are the classes
            of the data in their order.
        lines: What a user may not expect: which classes match if not all do, and another image size
            than the student's.
    """

    model: nn.Module
    classes: tuple[int, ...] | None = None
    lines: tuple[str, ...] = ()


def matched_teacher(
    name: str,
    images: Dataset,
    weights: str | Path | None,
    *,
    pretrained: bool = False,
    classes: Path | None = None,
    own: Sequence[str] | None = None,
    size: int | None = None,
) -> MatchedTeacher:
    """Build a trained teacher, and match its classes with those of the images by name.

    Names of the teacher's classes are those of the file, or else of its library, or else those that
    its training recorded. Without any, the classes are those of the images if their number is, and
    else none of them.

    Args:
        name: Name of the network.
        images: The images.
        weights: File of the trained weights; None without one.
        pretrained: Whether the weights are those of the network's library.
        classes: File of the teacher's classes.
        own: Names of the classes that the teacher was used with before.
        size: Height and width of the images that the teacher sees, in pixels. Default: those of its
            library's trained weights, or else those of the images.

    Raises:
        UserError: The teacher does not fit the images, or its weights or classes do not fit.
    """
    from diswot.models import class_names
    from diswot.models.registry import input_config
    from diswot.models.resized import ResizedInput
    from diswot.runs import folder

    wants = input_config(name, pretrained)
    known = wants.classes if classes is None else class_names.read_class_names(classes)
    count, trained = len(images.classes), wants.num_classes
    learnt = None if known is not None or pretrained else folder.recorded_classes(weights) or own
    if learnt is not None:
        known = [(each,) for each in learnt]
    if known is not None and trained not in (None, len(known)):
        raise UserError(
            f"{name} was trained for {trained} classes, and {classes} names {len(known)}"
        )
    outputs = len(known) if known is not None else trained or count
    side = size or (wants.img_size if pretrained else None) or images.size
    if images.task == "detection" and side != images.size:
        raise UserError(
            f"a detector sees images of the data's size, as its boxes are in pixels of them: "
            f"{images.size} pixels high, not {side}"
        )
    shown = replace(images, size=side)
    model = inputs.built_teacher(name, shown, weights, outputs, pretrained=pretrained)
    found = (
        list(range(count)) if known is None else class_names.match_classes(known, images.classes)
    )
    guessed = outputs == count and classes is None and learnt is None and not _matched(found)
    if guessed:  # a library's names may have been left as they were
        found = list(range(count))
    if known is None and outputs != count:
        found = [-1] * count
    teacher = _cut(model, found, outputs, shown)
    if guessed and known is not None:
        line = (
            "the teacher's library names none of its classes as the data does, so that they count "
            "in the order of the data (--teacher-classes names them)"
        )
        teacher = teacher._replace(lines=(*teacher.lines, line))
    if side == images.size:
        return teacher
    line = (
        f"the teacher sees images of {side} x {side} pixels, the student of {images.size} x "
        f"{images.size} (--teacher-image-size)"
    )
    return MatchedTeacher(
        ResizedInput(teacher.model, side), teacher.classes, (*teacher.lines, line)
    )


def _matched(found: Sequence[int]) -> list[int]:
    """Return the classes of the data that are found among the teacher's."""
    return [place for place, output in enumerate(found) if output >= 0]


def _cut(model: nn.Module, found: Sequence[int], outputs: int, images: Dataset) -> MatchedTeacher:
    """Cut off the outputs that match none of the data's classes.

    `found` is the output of each class of the data, -1 for none.
    """
    from diswot.models.class_names import select_classes

    places = _matched(found)
    if not places:
        line = (
            f"none of the {outputs} classes of the teacher is a class of the data, so that only "
            "its feature maps teach"
        )
        return MatchedTeacher(model, (-1,) * outputs, (line,))
    if list(found) != list(range(outputs)):
        select_classes(model, [found[place] for place in places], images.image_shape)
    if len(places) == len(found):
        return MatchedTeacher(model)
    line = (
        f"the teacher has {len(places)} of the {len(found)} classes of the data "
        f"({len(places) / len(found):.0%}), not {images.classes[found.index(-1)]} for one: the "
        "others get no soft label"
    )
    return MatchedTeacher(model, tuple(places), (line,))

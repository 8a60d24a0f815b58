"""The trained teacher of a distillation: its weights, its classes and the size of its images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from diswot.cli import inputs
from diswot.errors import UserError
from diswot.runs import folder

if TYPE_CHECKING:
    from torch import nn

    from diswot.cli.options import TeacherOptions
    from diswot.data.dataset import Dataset
    from diswot.models.preprocessing import Aliases, InputConfig

_IN_ORDER = (
    "the teacher's library names none of its classes as the data does, so that they count in the "
    "order of the data (--teacher-classes names them)"
)


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
    classes: tuple[int, ...] | None
    lines: tuple[str, ...]


def matched_teacher(
    teacher: TeacherOptions,
    images: Dataset,
    *,
    classes: Path | None = None,
    own: Sequence[str] | None = None,
    size: int | None = None,
) -> MatchedTeacher:
    """Build a trained teacher, and match its classes with those of the images by name.

    The first of these that are known name the teacher's classes: the file, its library, the record
    of its training, and the names that it was used with before (`own`). Without any, the classes
    are those of the images if their number is, and else none of them. The teacher sees images of
    `size` x `size` pixels: by default those of its library's trained weights, or else those of the
    data.
    """
    from diswot.models.registry import input_config
    from diswot.models.resized import ResizedInput

    wants = input_config(teacher.teacher, teacher.pretrained)
    known, sure = _known_classes(teacher, wants, classes, own)
    outputs = len(known) if known is not None else wants.num_classes or len(images.classes)
    shown = replace(images, size=size or (teacher.pretrained and wants.img_size) or images.size)
    if images.task == "detection" and shown.size != images.size:
        raise UserError(
            f"a detector sees images of the data's size, as its boxes are in pixels of them: "
            f"{images.size} pixels high, not {shown.size}"
        )
    model = inputs.built_teacher(teacher, shown, outputs)
    found, order = _found_outputs(known, images.classes, outputs, sure=sure)
    kept, missing = _cut(model, found, outputs, shown)
    lines = [line for line in (order, missing) if line]
    if shown.size != images.size:
        model = ResizedInput(model, shown.size)
        lines.append(
            f"the teacher sees images of {shown.size} x {shown.size} pixels, the student of "
            f"{images.size} x {images.size} (--teacher-image-size)"
        )
    return MatchedTeacher(model, kept, tuple(lines))


def _known_classes(
    teacher: TeacherOptions, wants: InputConfig, classes: Path | None, own: Sequence[str] | None
) -> tuple[Sequence[Aliases] | None, bool]:
    """Return the names of each class of the teacher, and whether they are of its training.

    None is for a teacher whose classes have no names. Those that its library gives are not of its
    training: they may have been left as they were.
    """
    from diswot.models.class_names import read_class_names

    known: Sequence[Aliases] | None = wants.classes
    learnt = None
    if classes is not None:
        known = read_class_names(classes)
    elif known is None and not teacher.pretrained:
        learnt = folder.recorded_classes(teacher.teacher_weights) or own
        known = None if learnt is None else [(each,) for each in learnt]
    if known is not None and wants.num_classes not in (None, len(known)):
        raise UserError(
            f"{teacher.teacher} was trained for {wants.num_classes} classes, and {classes} names "
            f"{len(known)}"
        )
    return known, classes is not None or learnt is not None


def _found_outputs(
    known: Sequence[Aliases] | None, classes: Sequence[str], outputs: int, *, sure: bool
) -> tuple[list[int], str]:
    """Return the output of each class of the data, -1 for none, and a line if names do not say it.

    Where no name matches and the names are not `sure`, the outputs are the classes in their order,
    if both are equally many.
    """
    from diswot.models.class_names import match_classes

    in_order = list(range(outputs)) if outputs == len(classes) else [-1] * len(classes)
    found = in_order if known is None else match_classes(known, classes)
    if _matched(found) or sure or outputs != len(classes):
        return found, ""
    return in_order, _IN_ORDER


def _matched(found: Sequence[int]) -> list[int]:
    """Return the classes of the data that are found among the teacher's."""
    return [place for place, output in enumerate(found) if output >= 0]


def _cut(
    model: nn.Module, found: Sequence[int], outputs: int, images: Dataset
) -> tuple[tuple[int, ...] | None, str]:
    """Cut off the outputs that match none of the data's classes, unless none matches.

    `found` is the output of each class of the data, -1 for none. Returns the class of each output
    that is left, as in `MatchedTeacher`, and a line on classes that do not match.
    """
    from diswot.models.class_names import select_classes

    places = _matched(found)
    if not places:
        return (-1,) * outputs, (
            f"none of the {outputs} classes of the teacher is a class of the data, so that only "
            "its feature maps teach"
        )
    if list(found) != list(range(outputs)):
        select_classes(model, [found[place] for place in places], images.image_shape)
    if len(places) == len(found):
        return None, ""
    return tuple(places), (
        f"the teacher has {len(places)} of the {len(found)} classes of the data "
        f"({len(places) / len(found):.0%}), not {images.classes[found.index(-1)]} for one: the "
        "others get no soft label"
    )

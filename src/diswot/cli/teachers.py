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
    from diswot.models import class_names
    from diswot.models.registry import input_config
    from diswot.models.resized import ResizedInput

    pretrained = teacher.pretrained
    wants = input_config(teacher.teacher, pretrained)
    known = wants.classes if classes is None else class_names.read_class_names(classes)
    count, trained = len(images.classes), wants.num_classes
    learnt = None
    if known is None and not pretrained:
        learnt = folder.recorded_classes(teacher.teacher_weights) or own
    if learnt is not None:
        known = [(each,) for each in learnt]
    if known is not None and trained not in (None, len(known)):
        raise UserError(
            f"{teacher.teacher} was trained for {trained} classes, and {classes} names {len(known)}"
        )
    outputs = len(known) if known is not None else trained or count
    side = size or (wants.img_size if pretrained else None) or images.size
    if images.task == "detection" and side != images.size:
        raise UserError(
            f"a detector sees images of the data's size, as its boxes are in pixels of them: "
            f"{images.size} pixels high, not {side}"
        )
    shown = replace(images, size=side)
    model = inputs.built_teacher(teacher, shown, outputs)
    sure = classes is not None or learnt is not None or outputs != count
    in_order = list(range(count)) if outputs == count else [-1] * count
    found = in_order if known is None else class_names.match_classes(known, images.classes)
    lines = []
    if not sure and not _matched(found):  # a library's names may have been left as they were
        found = in_order
        lines.append(_IN_ORDER)
    kept, line = _cut(model, found, outputs, shown)
    lines += [line] if line else []
    if side != images.size:
        model = ResizedInput(model, side)
        lines.append(
            f"the teacher sees images of {side} x {side} pixels, the student of {images.size} x "
            f"{images.size} (--teacher-image-size)"
        )
    return MatchedTeacher(model, kept, tuple(lines))


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

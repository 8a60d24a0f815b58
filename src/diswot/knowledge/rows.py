"""Which rows of two networks can be compared: those of the same images, pixels or anchors."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from diswot.errors import UserError
from diswot.observation.observe import Observation

_MAPS = "distances of maps, such as pkd, need none"


def check_rows(
    name: str,
    teacher: Observation,
    student: Observation,
    part: Literal["logits", "head_input", "class_gradient"],
    *,
    same: bool = True,
) -> None:
    """Refuse a distance of rows that a detector does not show, or that two do not share.

    Args:
        name: Name of the distance, for the message.
        teacher: Any observation.
        student: Any observation.
        part: What the distance looks at.
        same: Whether each row of one network is compared with a row of the other.
    """
    for role, seen in (("teacher", teacher), ("student", student)):
        if seen.strides and not getattr(seen, part).numel():
            raise UserError(
                f"{name} needs the anchors that a detector matches, and the {role} does not show "
                f"them; {_MAPS}"
            )
    if same and not _equal(teacher.anchors, student.anchors):
        raise UserError(f"{name} needs detectors with the same anchors; {_MAPS}")


def _equal(teacher: Tensor | None, student: Tensor | None) -> bool:
    """Say whether two networks have the same anchors, or are no detectors."""
    if teacher is None or student is None:
        return teacher is student
    return teacher.shape == student.shape and torch.equal(teacher.float(), student.float())

"""Checks of what is scored: networks, images, outputs; and errors of networks in one line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from torch import nn

from diswot.data.dataset import Batch
from diswot.errors import UserError, first_line
from diswot.models.supported import refuse_unsupported
from diswot.observation.hooks import describe
from diswot.observation.modes import require_network
from diswot.observation.observe import NoClassifier, Observation
from diswot.observation.rows import logits_of
from diswot.proxies.registry import Proxy

_SIZES = "scores without a forward pass need none: params, macs, depth and size"


@contextlib.contextmanager
def classifier_errors() -> Iterator[None]:
    """Name the scores that a network without a classifier can have."""
    try:
        yield
    except NoClassifier as error:
        raise UserError(f"{error}; {_SIZES}") from error


def check_types(teacher: object, student: object, batch: object) -> None:
    """Refuse names and other things in place of networks and images."""
    if teacher is not None and not isinstance(teacher, Observation):
        require_network("teacher", teacher)
    require_network("student", student)
    for model in (teacher, student):
        if isinstance(model, nn.Module):
            refuse_unsupported(model, float32=True)
    if not isinstance(batch, Batch):
        raise UserError("the images must be a batch, as data.batch(64) of a diswot data set is")


def check_outputs(outputs: object, num_classes: int | None) -> None:
    """Refuse a student with another number of outputs than the data has classes; None is any."""
    if num_classes is None:
        return
    found = logits_of(outputs)
    if found.ndim not in (2, 4):
        raise UserError(f"the model must return one tensor of logits N x K, not {describe(found)}")
    if found.shape[1] != num_classes:
        raise UserError(
            f"the student has {found.shape[1]} outputs, and the data has {num_classes} classes"
        )


def check_teacher_free(rows: Mapping[str, Proxy]) -> None:
    """Refuse scores that need a teacher."""
    needing = [name for name, row in rows.items() if row.needs_teacher]
    if needing:
        verb = "needs" if len(needing) == 1 else "need"
        raise UserError(
            f"{', '.join(needing)} {verb} a teacher; scores such as params, zen and "
            "naswot need none"
        )


@contextlib.contextmanager
def teacher_errors(batch: Batch) -> Iterator[None]:
    """Turn each error into a `UserError` of one line that names the teacher."""
    try:
        with classifier_errors():
            yield
    except UserError as error:
        raise UserError(f"the teacher: {error}") from error
    except Exception as error:  # a user's network may raise anything
        shape = tuple(batch.images.shape[1:])
        raise UserError(
            f"the teacher cannot take images of shape {shape}: {first_line(error)}"
        ) from error

"""What a training needs: images, labels or a teacher, and losses that fit them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from diswot.data.dataset import Dataset
from diswot.errors import UserError
from diswot.knowledge.losses import SharedClasses
from diswot.knowledge.registry import get_distance
from diswot.training.recipe import Recipe
from diswot.utils import user_code


def check_trainable(
    teacher: nn.Module | None,
    student: nn.Module,
    data: Dataset,
    recipe: Recipe,
    teacher_classes: Sequence[int] | None = None,
) -> None:
    """Refuse what cannot be trained, before anything is computed.

    Raises:
        UserError: There is nothing to train on, to learn from or to test with.
    """
    if data.train is None or data.test is None:
        raise UserError(f"{data.name} has no images to train on")
    if len(data.train) < 2 or not len(data.test):
        raise UserError(f"{data.name} has too few images to train and test on")
    weights = [recipe.cross_entropy, *(recipe.losses.values() if teacher is not None else [])]
    if not any(weights):
        raise UserError("nothing to learn from: cross_entropy is 0, and so is every loss")
    if teacher is student:
        raise UserError("the student cannot be its own teacher")
    if data.tests_agreement and (teacher is None or teacher_classes is not None):
        raise UserError("test images without labels need a teacher with the classes of the data")
    if teacher is not None and teacher_classes is not None:
        shared = SharedClasses(tuple(teacher_classes))
        for name in recipe.losses:
            shared.check(user_code.name_of(name), get_distance(name))
    if data.has_unlabelled:
        _check_unlabelled(teacher, data, recipe)
    if data.task == "detection":
        _check_detection(recipe, teacher_classes)


def _check_unlabelled(teacher: nn.Module | None, data: Dataset, recipe: Recipe) -> None:
    """Refuse what makes images without labels useless."""
    if teacher is None or not any(recipe.losses.values()):
        raise UserError("images without labels teach only through a teacher and a loss to it")
    needing = [user_code.name_of(n) for n in recipe.losses if get_distance(n).needs_labels]
    if needing and not data.has_labels:
        raise UserError(
            f"{needing[0]} needs labels, and no training image has one; losses of outputs such as "
            "kd, and of maps such as at, need none"
        )
    if recipe.mixes:
        raise UserError("mixup and cutmix mix labels, which some images do not have; set both to 0")


def _check_detection(recipe: Recipe, teacher_classes: Sequence[int] | None) -> None:
    """Refuse settings that have no meaning for a detector, which has rows and losses of its own."""
    for name in ("cache", "compile", "label_smoothing"):
        if getattr(recipe, name):
            raise UserError(f"{name} is for networks that return logits, not for detectors")
    rows = [user_code.name_of(n) for n in recipe.losses if get_distance(n).outputs_alone]
    if rows and teacher_classes is not None:
        raise UserError(
            f"{rows[0]} needs a detector with the classes of the data as its teacher; losses of "
            "feature maps, such as pkd or at, do with any"
        )

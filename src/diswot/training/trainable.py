"""What a training needs: networks, images, labels or a teacher, and losses that fit them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from diswot.data.dataset import Dataset
from diswot.errors import UserError
from diswot.knowledge.losses import SharedClasses
from diswot.knowledge.registry import get_distance
from diswot.training.recipe import Recipe
from diswot.utils import user_code


@dataclass(frozen=True)
class Distillation:
    """A student, and all that it learns from.

    Attributes:
        teacher: Trained network; None for a student that learns from the labels alone.
        student: As it begins the training.
        data: Training and test images.
        recipe: Settings of the training.
        classes: Class of the data of each of the teacher's outputs, -1 for none; None if the
            teacher has the classes of the data, in their order.
    """

    teacher: nn.Module | None
    student: nn.Module
    data: Dataset
    recipe: Recipe
    classes: Sequence[int] | None = None

    @property
    def shared(self) -> list[str]:
        """Names of the classes that the teacher and the data share."""
        given = range(len(self.data.classes)) if self.classes is None else self.classes
        return [self.data.classes[place] for place in given if place >= 0]


def check_trainable(given: Distillation) -> None:
    """Refuse what cannot be trained, before anything is computed.

    Raises:
        UserError: There is nothing to train on, to learn from or to test with.
    """
    teacher, data, recipe = given.teacher, given.data, given.recipe
    if data.train is None or data.test is None:
        raise UserError(f"{data.name} has no images to train on")
    if len(data.train) < 2 or not len(data.test):
        raise UserError(f"{data.name} has too few images to train and test on")
    weights = [recipe.cross_entropy, *(recipe.losses.values() if teacher is not None else [])]
    if not any(weights):
        raise UserError("nothing to learn from: cross_entropy is 0, and so is every loss")
    if teacher is given.student:
        raise UserError("the student cannot be its own teacher")
    if data.tests_agreement and (teacher is None or given.classes is not None):
        raise UserError("test images without labels need a teacher with the classes of the data")
    if teacher is not None and given.classes is not None:
        shared = SharedClasses(tuple(given.classes))
        for name in recipe.losses:
            shared.check(user_code.name_of(name), get_distance(name))
    if data.has_unlabelled:
        _check_unlabelled(given)
    check_recipe(recipe, data)
    if data.task == "detection":
        _check_rows(recipe, given.classes)


def check_recipe(recipe: Recipe, data: Dataset) -> None:
    """Refuse settings that have no meaning for the task or the labels of the data.

    Raises:
        UserError: There is such a setting.
    """
    if data.has_unlabelled and recipe.mixes:
        raise UserError("mixup and cutmix mix labels, which some images do not have; set both to 0")
    if data.task != "classification" and (recipe.mixes or recipe.randaugment):
        raise UserError("mixup, cutmix and RandAugment are for one label an image")
    if recipe.dice and data.task == "classification":
        raise UserError("dice is a loss of segmentation; the labels are those of images")
    if data.task == "detection":
        for name in ("cache", "compile", "label_smoothing"):
            if getattr(recipe, name):
                raise UserError(f"{name} is for networks that return logits, not for detectors")


def _check_unlabelled(given: Distillation) -> None:
    """Refuse what makes images without labels useless."""
    data, recipe = given.data, given.recipe
    if given.teacher is None or not any(recipe.losses.values()):
        raise UserError("images without labels teach only through a teacher and a loss to it")
    needing = [user_code.name_of(n) for n in recipe.losses if get_distance(n).needs_labels]
    if needing and not data.has_labels:
        raise UserError(
            f"{needing[0]} needs labels, and no training image has one; losses of outputs such as "
            "kd, and of maps such as at, need none"
        )


def _check_rows(recipe: Recipe, teacher_classes: Sequence[int] | None) -> None:
    """Refuse losses of the outputs of two detectors that differ in their classes."""
    rows = [user_code.name_of(n) for n in recipe.losses if get_distance(n).outputs_alone]
    if rows and teacher_classes is not None:
        raise UserError(
            f"{rows[0]} needs a detector with the classes of the data as its teacher; losses of "
            "feature maps, such as pkd or at, do with any"
        )

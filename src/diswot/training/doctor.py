"""What goes wrong most in a distillation, looked for before hours of training.

A student that is worse than without its teacher mostly has a teacher that does not see what it was
trained on: another normalisation, another order of the classes. The rest are soft labels without
a signal and losses of different scales.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from diswot.data.dataset import Dataset
from diswot.errors import UserError
from diswot.knowledge.losses import MIN_SHARED
from diswot.training.data_checks import check_labels, check_range
from diswot.training.distributed import Processes
from diswot.training.evaluation import check_fit, frozen
from diswot.training.finding import Finding, Sample, draw_sample
from diswot.training.loss_checks import check_losses, check_temperature
from diswot.training.recipe import Recipe
from diswot.training.teacher_checks import (
    check_accuracy,
    check_augmentation,
    check_normalisation,
    check_order,
    check_result,
    outputs_of,
)
from diswot.training.trainable import Distillation, check_recipe

IMAGES = 1000

OnCheck = Callable[[int, int, str], None]


def diagnose(
    teacher: nn.Module,
    student: nn.Module,
    data: Dataset,
    recipe: Recipe,
    *,
    images: int = IMAGES,
    teacher_classes: Sequence[int] | None = None,
    on_check: OnCheck = lambda done, total, check: None,
) -> tuple[Finding, ...]:
    """Check a distillation without training.

    Args:
        teacher: A trained network. It is moved to the device that Accelerate chooses.
        student: As it begins the training. It is moved to that device, too.
        data: Training and test images.
        recipe: Settings of the training.
        images: Most training images, and most test images, to look at.
        teacher_classes: Class of the data of each of the teacher's outputs, -1 for none. Default:
            the teacher has the classes of the data.
        on_check: Called before each step with its number, the number of all and its name.

    Returns:
        One finding or more for each check.

    Raises:
        UserError: A network or the recipe does not fit the data, or there are no images to look at.
    """
    if not (data.train and data.test):
        raise UserError(f"{data.name} has no images to train and test on")
    check_recipe(recipe, data)
    processes = Processes()
    device = processes.device
    for role, model in (("teacher", teacher), ("student", student)):
        model.to(device)
        with frozen(model):
            check_fit(role, model, data, device, teacher_classes if model is teacher else None)
    given = Distillation(teacher, student, data, recipe, teacher_classes)
    with frozen(teacher), torch.random.fork_rng(devices=processes.gpus):
        findings = _findings(given, images, processes, on_check)
    return *findings, _sizes(teacher, student)


def _findings(
    given: Distillation, images: int, processes: Processes, on_check: OnCheck
) -> list[Finding]:
    """Do all checks."""
    data, recipe = given.data, given.recipe
    assert data.train is not None and data.test is not None
    on_check(0, 4, "reading images")
    train = draw_sample(data.train, images, recipe.seed)
    findings = [check_labels(data), check_range(data, train)]
    on_check(1, 4, "testing the teacher")
    if data.train.annotations is not None:
        findings.append(check_result(given, images, processes.device))
    else:
        logits = outputs_of(given, train.images)
        seen = train.labelled_as(given.classes).right(logits)
        findings += _of_teacher(given, draw_sample(data.test, images, recipe.seed), seen)
        findings.append(check_augmentation(given, images, seen, processes))
        if len(given.shared) >= MIN_SHARED:
            findings += check_temperature(recipe, logits)
    on_check(3, 4, "computing losses")
    findings += check_losses(given, processes)
    on_check(4, 4, "done")
    return findings


def _of_teacher(given: Distillation, test: Sample, seen: Tensor) -> list[Finding]:
    """Check what the teacher says of test images whose label it knows.

    `seen` says whether each such training image is classified right.
    """
    sample = test.labelled_as(given.classes).known()
    if not len(sample.labels):
        text = "not looked at: no test image has a label that the teacher knows"
        return [Finding("teacher's accuracy", "good", text)]
    answers = outputs_of(given, sample.images)
    return [
        check_accuracy(sample.right(answers), seen, sample.labels),
        check_order(answers, sample.labels, tuple(given.shared)),
        check_normalisation(given, sample),
    ]


def _sizes(teacher: nn.Module, student: nn.Module) -> Finding:
    large, small = (sum(w.numel() for w in model.parameters()) for model in (teacher, student))
    text = f"the student has {small:,} parameters, the teacher {large:,}"
    if small <= large:
        return Finding("sizes", "good", text)
    return Finding("sizes", "warning", text, "exchange --teacher and --student")

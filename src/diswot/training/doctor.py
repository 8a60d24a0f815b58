"""What goes wrong most in a distillation, looked for before hours of training.

A student that is worse than without its teacher mostly has a teacher that does not see what it was
trained on: another normalisation, another order of the classes. The rest are soft labels without
a signal and losses of different scales.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from diswot.data.dataset import Dataset
from diswot.errors import UserError
from diswot.training.data_checks import check_labels, check_range
from diswot.training.distributed import Processes
from diswot.training.evaluation import check_fit, frozen
from diswot.training.finding import Finding, draw_sample
from diswot.training.loss_checks import check_losses, check_temperature
from diswot.training.recipe import Recipe
from diswot.training.teacher_checks import (
    check_accuracy,
    check_augmentation,
    check_normalisation,
    check_order,
    outputs_of,
)

IMAGES = 1000

OnCheck = Callable[[int, int, str], None]


def diagnose(
    teacher: nn.Module,
    student: nn.Module,
    data: Dataset,
    recipe: Recipe,
    *,
    images: int = IMAGES,
    on_check: OnCheck = lambda done, total, check: None,
) -> tuple[Finding, ...]:
    """Check a distillation without training.

    Args:
        teacher: A trained network. It is moved to the device that Accelerate chooses.
        student: As it begins the training. It is moved to that device, too.
        data: Training and test images.
        recipe: Settings of the training.
        images: Most training images, and most test images, to look at.
        on_check: Called before each step with its number, the number of all and its name.

    Returns:
        One finding or more for each check.

    Raises:
        UserError: A network does not fit the data, or there are no images to look at.
    """
    if not (data.train and data.test):
        raise UserError(f"{data.name} has no images to train and test on")
    processes = Processes()
    device = processes.device
    for role, model in (("teacher", teacher), ("student", student)):
        model.to(device)
        with frozen(model):
            check_fit(role, model, data, device)
    with frozen(teacher), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        return tuple(_findings(teacher, student, data, recipe, images, processes, on_check))


def _findings(
    teacher: nn.Module,
    student: nn.Module,
    data: Dataset,
    recipe: Recipe,
    images: int,
    processes: Processes,
    on_check: OnCheck,
) -> list[Finding]:
    assert data.train is not None and data.test is not None
    on_check(0, 4, "reading images")
    test, train = (draw_sample(split, images, recipe.seed) for split in (data.test, data.train))
    on_check(1, 4, "testing the teacher")
    answers, known = (outputs_of(teacher, data, sample.images) for sample in (test, train))
    seen = train.right(known)
    findings = [check_labels(data), check_range(data, train)]
    if data.tests_agreement:
        text = "not looked at: no test image has a label"
        findings.append(Finding("teacher's accuracy", "good", text))
    else:
        findings.append(check_accuracy(test.right(answers), seen, test.labels))
        findings.append(check_order(answers, test.labels, data.classes))
        on_check(2, 4, "trying other normalisations")
        findings.append(check_normalisation(teacher, data, test))
    on_check(3, 4, "computing losses")
    findings.append(check_augmentation(teacher, data, recipe, seen, images, processes))
    findings += check_temperature(recipe, known)
    findings += check_losses(teacher, student, data, recipe, processes)
    on_check(4, 4, "done")
    return [*findings, _sizes(teacher, student)]


def _sizes(teacher: nn.Module, student: nn.Module) -> Finding:
    """Compare the sizes of both networks."""
    large, small = (sum(w.numel() for w in model.parameters()) for model in (teacher, student))
    text = f"the student has {small:,} parameters, the teacher {large:,}"
    if small <= large:
        return Finding("sizes", "good", text)
    return Finding("sizes", "warning", text, "exchange --teacher and --student")

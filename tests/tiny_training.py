"""Tiny trainings on digits, and what their tests share."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from toys import CLASSES, LinearHead, seeded

from diswot.data.dataset import Dataset, Split, whole
from diswot.data.registry import create_dataset
from diswot.spaces.cifar_resnet import CifarResNet
from diswot.tasks.registry import task_of
from diswot.training.distill import Distilled, distill
from diswot.training.evaluation import count_all
from diswot.training.recipe import Recipe

SHORT = Recipe(
    epochs=2, batch_size=32, lr=0.1, losses={"kd": 1.0}, crop=1, flip=False, precision="fp32"
)
LONG = replace(SHORT, epochs=8, lr=0.3, crop=0)
# Guessing gets 20 of the 100 test images, with a standard deviation of 4; 60 is ten of these above.
# The rest of a tiny training's accuracy varies by several images with the processor's rounding.
LEARNED = 60


def split_of(images: Tensor, labels: Tensor) -> Split:
    """Return a split that holds these images in memory."""
    return Split(labels, lambda indices: images[torch.as_tensor(indices)])


def measure_result(model: nn.Module, data: Dataset) -> float:
    """Return the result on all test images, in %: accuracy, mean IoU, or mean average precision."""
    task = task_of(data)
    return task.results(count_all(model, data), len(data.classes)).means[task.result]


@cache
def digits(train: int = 330, test: int = 100) -> Dataset:
    """Return the first images of the digits 0 to 4, in 8 x 8."""
    whole_set = create_dataset("digits", img_size=8)
    splits = []
    for split, count in ((whole_set.train, train), (whole_set.test, test)):
        assert split is not None
        images, labels = whole(split)
        few = labels < CLASSES
        splits.append(split_of(images[few][:count], labels[few][:count]))
    return replace(whole_set, classes=whole_set.classes[:CLASSES], train=splits[0], test=splits[1])


def made(train: int = 330, test: int = 100) -> Dataset:
    """Return random images of five classes, for processes that need not load the digits."""
    generator = torch.Generator().manual_seed(0)
    splits = []
    for count in (train, test):
        images = torch.randint(0, 256, (count, 3, 8, 8), generator=generator).to(torch.uint8)
        splits.append(split_of(images, torch.arange(count) % CLASSES))
    return Dataset("made", tuple("abcde"), 8, (0.5,) * 3, (0.25,) * 3, *splits)


@cache
def _trained() -> nn.Module:
    return distill(None, seeded(LinearHead, 7), digits(), LONG).student


def teacher() -> nn.Module:
    """Return a copy of a trained teacher."""
    return copy.deepcopy(_trained())


def wide_teacher() -> nn.Module:
    """Return an untrained CIFAR ResNet of three blocks."""
    return seeded(lambda: CifarResNet((1, 1, 1), CLASSES))


def states_equal(one: nn.Module, other: nn.Module) -> bool:
    """Whether two networks have the same weights and buffers, to the last bit."""
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


def curve(trained: Distilled) -> list[dict[str, float]]:
    """Return the history without the columns that depend on the clock."""
    times = {"seconds", "images_per_second"}
    return [{k: v for k, v in row.items() if k not in times} for row in trained.history]


def at_step(number: int, act: Callable[[], object]) -> Callable[[int, int, Any], None]:
    """Return a callback that acts after one step."""

    def on_step(step: int, steps: int, row: Any) -> None:
        if step == number:
            act()

    return on_step


def interrupt() -> None:
    """Stop a training as Ctrl-C does."""
    raise KeyboardInterrupt

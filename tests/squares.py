"""Drawn squares with their boxes in memory, and detectors that learn them in a few epochs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from detectors import CLASSES, SIZE, fcos
from torch import Tensor, nn

from diswot.data.dataset import Dataset, Split
from diswot.observation.rows import IGNORED
from diswot.training.recipe import Recipe

RECIPE = Recipe(
    epochs=2, batch_size=8, optimizer="adamw", lr=0.01, crop=0, precision="fp32", losses={}
)


def draw_square(random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw a square of one of three colours on noise; return 3 x H x W bytes, and 2 x 6."""
    image = torch.randint(0, 60, (3, *SIZE), generator=random, dtype=torch.uint8)
    side = int(torch.randint(16, 33, (), generator=random))
    x, y = (int(torch.randint(0, e - side, (), generator=random)) for e in (SIZE[1], SIZE[0]))
    label = int(torch.randint(CLASSES, (), generator=random))
    image[label, y : y + side, x : x + side] = 230
    return image, torch.tensor([[x, y, x + side, y + side, label, 0], [IGNORED] * 6])


def split(count: int, seed: int) -> Split:
    random = torch.Generator().manual_seed(seed)
    drawn = [draw_square(random) for _ in range(count)]
    images, boxes = (torch.stack(each) for each in zip(*drawn, strict=True))

    def of(values: Tensor) -> Callable[[Sequence[int]], Tensor]:
        return lambda indices: values[torch.as_tensor(indices)]

    return Split(torch.zeros(count, dtype=torch.int64), of(images), of(boxes.float()))


def squares(train: int, test: int) -> Dataset:
    mean = std = (0.25,) * 3
    return Dataset(
        "squares", ("red", "green", "blue"), SIZE[0], mean, std, split(train, 0), split(test, 1),
        width=SIZE[1], task="detection",
    )  # fmt: skip


def few_squares() -> Dataset:
    return squares(16, 4)


def seeded(build: Callable[..., nn.Module] = fcos, width: int = 4) -> nn.Module:
    torch.manual_seed(0)
    return build(width)

"""Distillation speed: images a second against a plain PyTorch loop. `make bench` runs it.

The plain loop is the usual one: a DataLoader with workers, torchvision's transforms image by
image, single precision, teacher and student, softened outputs and labels, SGD. Ours is `distill`'s
own step on the same images, networks and batch size. Both run in turn, some steps a turn, in one
process on one machine; the middle ratio is what counts.

The other rows show `distill` without one part, or with one more.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from timing import footer, in_turn
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision import transforms

from diswot.cli import console
from diswot.data.dataset import Dataset, Split
from diswot.models.registry import create_teacher
from diswot.training.distributed import Processes
from diswot.training.loop import TrainingLoop
from diswot.training.recipe import Recipe
from diswot.training.trainable import Distillation

CLASSES, IMAGES, SIDE = 100, 4096, 32
MEAN, STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)


def made() -> Dataset:
    """Noise in the shape of CIFAR-100: what is in the images does not matter to the time."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (IMAGES, 3, SIDE, SIDE), generator=generator).to(torch.uint8)
    split = Split(torch.arange(IMAGES) % CLASSES, lambda i: pixels[torch.as_tensor(i)])
    names = tuple(str(i) for i in range(CLASSES))
    return Dataset("made", names, SIDE, MEAN, STD, split, split)


class Pictures(TorchDataset[tuple[Tensor, int]]):
    """Image by image, as torchvision's own data sets."""

    def __init__(self, data: Dataset) -> None:
        assert data.train is not None
        self.pixels = data.train.read(range(IMAGES)).permute(0, 2, 3, 1).numpy()
        self.labels = data.train.labels.tolist()
        self.change = transforms.Compose(
            [
                transforms.ToPILImage(),
                transforms.RandomCrop(SIDE, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.change(self.pixels[index]), self.labels[index]


def plain(data: Dataset, batch: int, workers: int, device: torch.device) -> Callable[[], None]:
    """One step of the usual loop, each time it is called."""
    loader = DataLoader(
        Pictures(data), batch, shuffle=True, num_workers=workers, drop_last=True,
        persistent_workers=workers > 0, pin_memory=device.type == "cuda",
    )  # fmt: skip
    teacher = create_teacher("resnet56", CLASSES).to(device).eval()
    student = create_teacher("resnet20", CLASSES).to(device).train()
    optimizer = torch.optim.SGD(student.parameters(), 0.05, 0.9, weight_decay=5e-4, nesterov=True)
    batches = itertools.chain.from_iterable(itertools.repeat(loader))

    def step() -> None:
        images, labels = (each.to(device, non_blocking=True) for each in next(batches))
        with torch.no_grad():
            taught = teacher(images)
        logits = student(images)
        target, output = (log_softmax(each / 4, 1) for each in (taught, logits))
        softened = 16 * kl_div(output, target, reduction="batchmean", log_target=True)
        loss = cross_entropy(logits, labels) + softened
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()

    return step


def ours(data: Dataset, recipe: Recipe) -> Callable[[], None]:
    """One step of `distill`, each time it is called."""
    teacher = create_teacher("resnet56", CLASSES).eval().requires_grad_(False)
    student = create_teacher("resnet20", CLASSES)
    loop = TrainingLoop(Distillation(teacher, student, data, recipe), Processes())
    loop.read(lambda done, total: None, None)
    update = loop.create_step(student)
    student.train()

    def steps() -> Iterator[None]:
        for epoch in itertools.count():
            for parts in loop.batches.epoch(loop.train, epoch):
                loop.numbers(update.updates, update(parts))
                yield

    stream = steps()
    return lambda: next(stream)


def several(step: Callable[[], None], count: int, device: torch.device) -> Callable[[], None]:
    def run() -> None:
        for _ in range(count):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--steps", type=int, default=4, help="a turn")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=min(8, os.cpu_count() or 1))
    parser.add_argument("--compile", action="store_true", help="one more row; compiling takes long")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data, recipe = made(), Recipe(batch_size=options.batch_size)
    still = replace(recipe, crop=0, flip=False)
    work = {
        "plain loop": plain(data, options.batch_size, options.workers, device),
        "distill": ours(data, recipe),
        "in fp32": ours(data, replace(recipe, precision="fp32")),
        "watching maps (diswot)": ours(
            data, replace(recipe, losses={"kd": 1.0, "semantic": 1.0, "relation": 1.0})
        ),
        "teacher's outputs kept": ours(data, replace(still, cache=True)),
    }
    if options.compile:
        work["compiled"] = ours(data, replace(recipe, compile=True))
    times = in_turn(
        {name: several(step, options.steps, device) for name, step in work.items()}, options.turns
    )
    images = options.steps * options.batch_size
    rows = [
        [name, f"{images / each.median:.0f}", times["plain loop"].over(each)]
        for name, each in times.items()
    ]
    console.table(
        f"ResNet-56 teaches ResNet-20, batch {options.batch_size}, {options.workers} workers; "
        "target at least 2 on 2 cores, 8 on a card",
        ["", "images/s", "over the plain loop"],
        rows,
    )
    print(footer(options.turns))


if __name__ == "__main__":
    main()

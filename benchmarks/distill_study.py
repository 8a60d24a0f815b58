"""What distillation gives on real images, on a CPU: `make study-distill`, about an hour.

A fifth of CIFAR-100's classes with half of their training images, a trained ResNet-32, and short
trainings: the student that a search finds, distilled by each of several distillers and alone, and
ResNet-20, which is as large. Three seeds each. A training that was done, or stopped, is not done
again: everything is kept in `runs/distill-study`. Writes docs/distillation.md between its marks.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from pages import DOCS, markdown, spread
from short_training import images_in, trained_teacher
from torch import nn

from diswot.costs.budget import Budget
from diswot.costs.counts import count_macs, count_params
from diswot.data.dataset import Dataset, Split
from diswot.errors import UserError
from diswot.models.initialization import fresh
from diswot.nas.api import search
from diswot.nas.evaluator import Scoring
from diswot.spaces.registry import Params, build_network, create_space
from diswot.training.distill import distill
from diswot.training.evaluation import measure_result
from diswot.training.recipe import Recipe, parse_losses
from diswot.utils import files
from diswot.utils.environment import hardware, versions
from diswot.utils.units import show_count

TAKE, IMAGES, TESTS = (
    5,
    250,
    50,
)  # one class of this many; images of each class to train and test on
SEEDS, EPOCHS = 3, 5
LARGEST = 3e5  # parameters of the found student: ResNet-20 has 0.27 million
DISTILLERS = {
    "kd": "kd",
    "dkd": "dkd",
    "dist": "dist:2",
    "at": "at:10",
    "sp": "sp:3000",
    "rkd": "rkd:25",
    "diswot_class": "diswot_class",
}
HAND: Params = {"blocks1": 3, "blocks2": 3, "blocks3": 3}
START, END = "<!-- study: from here", "<!-- study: to here -->"


@dataclass(frozen=True)
class Run:
    """A training: of which student, by which distiller, with which seed."""

    student: str
    distiller: str | None
    seed: int

    @property
    def name(self) -> str:
        return f"{self.student}-{self.distiller or 'alone'}-{self.seed}"


def runs() -> list[Run]:
    """The rounds by seed, so that a study that is stopped has something of everything."""
    pairs = [("found", None), ("hand", None), ("hand", "kd")]
    pairs += [("found", distiller) for distiller in DISTILLERS]
    return [Run(*pair, seed) for seed in range(SEEDS) for pair in pairs]


def few(images: Dataset) -> tuple[Dataset, list[int]]:
    """Some of the classes and images, and which classes they are among all."""
    kept = list(range(0, len(images.classes), TAKE))
    splits = [_few(split, kept, n) for split, n in ((images.train, IMAGES), (images.test, TESTS))]
    names = tuple(images.classes[i] for i in kept)
    return replace(images, classes=names, train=splits[0], test=splits[1]), kept


def _few(split: Split | None, kept: list[int], count: int) -> Split:
    assert split is not None
    chosen = torch.cat([(split.labels == label).nonzero()[:count, 0] for label in kept])
    labels = torch.tensor([kept.index(int(split.labels[i])) for i in chosen])
    pixels = split.read(chosen.tolist())
    return Split(labels, lambda indices: pixels[torch.as_tensor(indices)])


def found(teacher: nn.Module, images: Dataset, out: Path) -> Params:
    """The student of the highest default score of S0 within the limit, searched for once."""
    path = out / "found.json"
    if not path.exists():
        space = create_space("s0", len(images.classes))
        result = search(
            teacher, space, images.batch(64), n_trials=64, budget=Budget(max_params=LARGEST),
            scoring=Scoring(trained_teacher=True),
        )  # fmt: skip
        files.write_json(path, result.best.params | {"seconds": result.seconds})
    kept = files.read_json(path)
    return {name: value for name, value in kept.items() if name != "seconds"}


def train(
    run: Run, params: Params, teacher: nn.Module, images: Dataset, out: Path
) -> dict[str, Any]:
    """Train, or read the result of a finished training."""
    losses = parse_losses(DISTILLERS[run.distiller]) if run.distiller else {}
    recipe = Recipe(epochs=EPOCHS, lr=0.1, schedule="onecycle", losses=losses, seed=run.seed)
    space = create_space("s0", len(images.classes))
    model = fresh(lambda: build_network(space, params), "default", run.seed)
    master = teacher if losses else None
    made = distill(master, model, images, recipe, out=out / run.name, resume=True)
    return {
        "accuracy": made.test_accuracy,
        "seconds": made.seconds,
        "params": count_params(model),
        "macs": count_macs(model, images.image_shape),
    }


def page(shapes: dict[str, Params], done: dict[Run, dict[str, Any]], facts: dict[str, Any]) -> str:
    rows = []
    for run in runs()[: len(runs()) // SEEDS]:
        group = [
            v for r, v in done.items() if (r.student, r.distiller) == (run.student, run.distiller)
        ]
        if group:
            shape = "-".join(str(value) for value in shapes[run.student].values())
            what = "ResNet-20" if run.student == "hand" else "found"
            rows.append(
                [
                    f"{what} ({shape})",
                    DISTILLERS[run.distiller] if run.distiller else "alone",
                    spread([each["accuracy"] for each in group]),
                    str(len(group)),
                    show_count(group[0]["params"]),
                    show_count(group[0]["macs"]),
                    f"{fmean(each['seconds'] for each in group):.0f}",
                ]
            )
    columns = ["student", "taught by", "test accuracy %", "seeds", "params", "MACs", "seconds"]
    machine = ", ".join(f"{n} {v}" for n, v in {**hardware(), **versions()}.items())
    return (
        f"{facts['classes']} classes of CIFAR-100, {facts['train']} training and {facts['test']} "
        f"test images; {EPOCHS} epochs, batch 64, one cycle up to 0.1, bf16 autocast. Mean and "
        f"standard deviation over the seeds. The teacher, trained on all 100 classes, has "
        f"{facts['teacher']:.2f} % on these test images, its outputs cut to these classes.\n\n"
        f"{markdown(columns, rows)}\n\n{machine}.\n"
    )


def write_page(text: str, path: Path) -> None:
    """Put the figures between the marks of a page."""
    before, _, rest = path.read_text().partition(START)
    mark, _, rest = rest.partition("\n")
    after = rest.partition(END)[2]
    files.write(path, lambda temporary: Path(temporary).write_text(
        f"{before}{START}{mark}\n\n{text}\n{END}{after}"
    ))  # fmt: skip


def study(options: argparse.Namespace) -> None:
    if not (Path(options.data) / "test").is_dir():
        raise UserError(f"{options.data} has no folder test: the teacher has seen all others")
    images, kept = few(images_in(options.data))
    teacher = trained_teacher(options.teacher_weights, kept)
    assert images.train is not None and images.test is not None
    facts = {"classes": len(kept), "train": len(images.train), "test": len(images.test)}
    facts["teacher"] = measure_result(teacher, images)
    shapes = {"found": found(teacher, images, options.out), "hand": HAND}
    done: dict[Run, dict[str, Any]] = {}
    for run in runs():
        done[run] = train(run, shapes[run.student], teacher, images, options.out)
        print(f"{run.name}: {done[run]['accuracy']:.2f} %", flush=True)
        write_page(page(shapes, done, facts), options.page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="CIFAR-100 as a folder of images")
    parser.add_argument("--teacher-weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/distill-study"))
    parser.add_argument("--page", type=Path, default=DOCS / "distillation.md")
    study(parser.parse_args())


if __name__ == "__main__":
    main()

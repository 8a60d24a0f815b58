"""Small networks for segmentation and detection: what a search finds, beside designs by hand.

    python benchmarks/dense_students.py teacher --cell camvid --data DIR --weights FILE
    python benchmarks/dense_students.py search --cell camvid --data DIR --weights FILE
    python benchmarks/dense_students.py train --cell camvid --data DIR --weights FILE
    python benchmarks/dense_students.py --cell "bccd quarter" --students FILE
    python benchmarks/dense_students.py --show

`camvid`: CamVid, 11 classes, 240 x 180 pixels, 367 training and 233 test images; the teacher is a
feature pyramid with a linear classifier. `bccd`: BCCD, 3 classes, 320 x 240 pixels, 205 training
and 72 test images; the teacher is an FCOS detector. Both teachers have a small ResNet as backbone
and are trained here on the labels from random weights. The budget is the cost of the same network
with half of the channels, or a quarter (`camvid quarter`, `bccd quarter`): the design by hand. In
`camvid macs` and `bccd macs` the budget is the MACs of that with half of the channels alone. The
space is the sub-networks of the teacher, and all students that are distilled start from its
weights; alone, a student starts from random weights. `--random N` adds random students of at least
80 % of one of the costs, which are trained with one seed.

Choices use training images alone; results are those of the test images after the last epoch. Each
step adds lines to its file; what is there is not repeated.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from random_students import random_student
from short_training import append, is_there, lines, machine, measure_result
from timm.models.resnet import BasicBlock, ResNet
from torch import nn

from diswot.costs.budget import Budget, Costs
from diswot.costs.counts import count_depth
from diswot.data.dataset import Dataset
from diswot.data.registry import create_dataset
from diswot.models.backbones import StageMaps
from diswot.models.detectors import build_detector
from diswot.models.inheritance import inherit
from diswot.models.initialization import fresh
from diswot.models.weights import load_weights
from diswot.nas.api import search
from diswot.spaces.dense import PyramidSegmenter
from diswot.spaces.registry import Params, build_network, create_space
from diswot.training.batches import augmented_batches
from diswot.training.distill import distill
from diswot.training.recipe import Recipe, parse_losses
from diswot.utils import jsonl, state_dicts

FILE = "benchmarks/dense_students.py"
HAND, RANDOM = "by hand", "random"
PICKS = (HAND, "default_inherited", "params")
SCORED = 8  # images of a scoring batch
ALONE, LABELS = "alone", "labels"  # from random weights, and from those of the teacher


def segmenter(width: int = 32, num_classes: int = 11) -> nn.Module:
    """Build a feature pyramid over a ResNet-18 of a width at its first stage."""
    body, channels = _resnet(width)
    names = [f"layer{stage}" for stage in range(1, 5)]
    return PyramidSegmenter(
        StageMaps(body, {n: n for n in names}), channels, 2 * width, num_classes
    )


def detector(width: int = 32, num_classes: int = 3) -> nn.Module:
    """Build an FCOS detector over a ResNet-18 of a width at its first stage."""
    body, _ = _resnet(width, 10)
    head = max(32, 2 * width)  # its group normalisation has 32 groups
    return build_detector(
        body, "fcos", num_classes, CELLS["bccd"].size, "ResNet", width=head,
        head_width=head, head_depth=2,
    )  # fmt: skip


def _resnet(width: int, classes: int = 0) -> tuple[nn.Module, tuple[int, ...]]:
    channels = tuple(width * 2**stage for stage in range(4))
    body = ResNet(
        BasicBlock, [2] * 4, num_classes=classes, channels=channels, stem_type="deep",
        stem_width=width // 2,
    )  # fmt: skip
    return body, channels


@dataclass(frozen=True)
class Cell:
    """Images, and the teacher that is trained on them.

    Attributes:
        build: Function of a width that builds the teacher, and the design by hand.
        classes: Number of classes.
        size: Height of the images in pixels.
        area: Smallest share of the image in a random crop.
        teacher_epochs: Epochs of the teacher's training.
        epochs: Epochs of a student's training.
        batch: Images of a batch.
        optimizer: Optimizer of the trainings.
        rates: Highest learning rate from random weights, and from those of the teacher.
        way: How the table of picks is distilled.
        distillers: Losses beside the task's own, whose weight is 1, by the name of the way.
        hand: Channels at the first stage of the design by hand; the teacher has 32.
        macs_alone: Whether the budget is its MACs alone, and not its parameters too.
    """

    build: Callable[..., nn.Module]
    classes: int
    size: int
    area: float
    teacher_epochs: int
    epochs: int
    batch: int
    optimizer: str
    rates: tuple[float, float]
    way: str
    distillers: Mapping[str, str]
    hand: int = 16
    macs_alone: bool = False

    def recipe(self, epochs: int, seed: int, *, fresh_start: bool, losses: str = "") -> Recipe:
        """Return the settings of a training."""
        return Recipe(
            epochs=epochs, batch_size=self.batch, optimizer=self.optimizer,
            lr=self.rates[0 if fresh_start else 1], schedule="onecycle", area=self.area,
            flip=True, seed=seed, losses=parse_losses(losses) if losses else {},
        )  # fmt: skip

    def space(self) -> Any:
        return create_space(f"subnet:{FILE}:{self.build.__name__}", self.classes, self.size)

    def limit(self, shape: tuple[int, int, int]) -> Budget:
        """Return the budget: the costs of the design by hand for images of a shape."""
        whole = Budget.like(self.make(None), shape)
        return replace(whole, max_params=None) if self.macs_alone else whole

    def make(self, params: Params | None) -> nn.Module:
        """Build a student; None is the design by hand."""
        return self.build(self.hand) if params is None else build_network(self.space(), params)


CELLS: dict[str, Cell] = {
    "camvid": Cell(
        segmenter, 11, 180, 0.3, 40, 20, 8, "sgd", (0.05, 0.02), "cwd",
        {"kd": "kd:1", "dist": "dist:1", "cwd": "cwd:3", "sp": "sp:3000",
         "diswot_class": "diswot_class"},
    ),
    "bccd": Cell(
        detector, 3, 240, 0.5, 24, 10, 4, "adamw", (1e-3, 5e-4), "pkd",
        {"pkd": "pkd:1", "pkd published": "pkd:published", "pkd 0.1": "pkd:0.1",
         "cwd": "cwd:3", "fitnet": "fitnet:1", "sp": "sp:3000"},
    ),
}  # fmt: skip
CELLS |= {f"{name} quarter": replace(cell, hand=8) for name, cell in CELLS.items()} | {
    f"{name} macs": replace(cell, macs_alone=True) for name, cell in CELLS.items()
}


def make_teacher(cell: Cell, data: Dataset, options: argparse.Namespace) -> None:
    """Train the teacher, unless its weights are there."""
    if options.weights.exists():
        return
    model = fresh(cell.build, "default", 0)
    recipe = cell.recipe(options.epochs or cell.teacher_epochs, 0, fresh_start=True)
    made = distill(None, model, data, recipe, on_epoch=lambda row: print(row, flush=True))
    state_dicts.save_weights(model, options.weights)
    print(f"teacher: {made.test_result:.2f} % in {made.seconds:.0f} s", flush=True)


def load_teacher(cell: Cell, weights: Path) -> nn.Module:
    model = cell.build()
    load_weights(model, weights)
    return model.eval()


def make_picks(cell: Cell, data: Dataset, options: argparse.Namespace) -> None:
    """Pick a student by each rule, unless it is there."""
    shape, limit = data.image_shape, cell.limit(data.image_shape)
    ready = {row["pick"] for row in jsonl.read_lines(options.picked) if row["cell"] == options.cell}
    for pick in options.picks:
        if pick in ready:
            continue
        start, params = time.process_time(), None
        if pick.startswith(RANDOM):
            number = int(pick.split()[1])
            params = random_student(cell.space(), cell.make, shape, limit, number)
        elif pick != HAND:
            teacher = load_teacher(cell, options.weights)
            result = search(
                teacher, cell.space(), data.batch(SCORED), scoring=pick,
                n_trials=options.candidates, budget=limit,
            )  # fmt: skip
            params = dict(result.best.params)
        seconds = time.process_time() - start
        model = cell.make(params)
        made = Costs(model, shape)
        row = {
            "cell": options.cell, "pick": pick, "params": params,
            "search_seconds": round(seconds, 1), "model_params": made.params,
            "macs": made.counts.macs, "layers": count_depth(model), **machine(),
        }  # fmt: skip
        jsonl.append(options.picked, [row])
        print(row, flush=True)


def trainings(cell: Cell, options: argparse.Namespace) -> Iterator[tuple[dict[str, Any], ...]]:
    """Yield a pick and the identity of each training, seed by seed; random picks have one."""
    for seed in range(options.seeds):
        for row in jsonl.read_lines(options.picked):
            if seed and row["pick"].startswith(RANDOM):
                continue
            if row["cell"] == options.cell and row["pick"] in options.picks:
                for way in options.ways or (ALONE, cell.way):
                    yield row, {"cell": options.cell, "pick": row["pick"], "way": way,
                                "seed": seed, "epochs": options.epochs or cell.epochs}  # fmt: skip


def make_trainings(cell: Cell, data: Dataset, options: argparse.Namespace) -> None:
    """Run the trainings whose lines are not there yet."""
    teacher = load_teacher(cell, options.weights)
    reached = f"{measure_result(teacher, data):.2f}"
    for row, key in trainings(cell, options):
        if is_there(options.out, key):
            continue
        sizes = {name: row[name] for name in ("model_params", "macs", "layers")}
        made = train(cell, teacher, data, row["params"], key)
        line = {**key, **sizes, "teacher": reached, **made, **machine()}
        append(options.out, line)
        print(line, flush=True)


def train(
    cell: Cell, teacher: nn.Module, data: Dataset, params: Params | None, key: Mapping[str, Any]
) -> dict[str, Any]:
    """Train once; return the results of a line of the table."""
    way, alone = key["way"], key["way"] == ALONE
    losses = "" if way in (ALONE, LABELS) else cell.distillers[way]
    settings = cell.recipe(key["epochs"], key["seed"], fresh_start=alone, losses=losses)
    start = time.process_time()
    model, share = fresh(partial(cell.make, params), "default", key["seed"]), 0.0
    if not alone:
        share = inherit(teacher, model, augmented_batches(data, settings)).share
    before = measure_result(model, data)
    made = distill(teacher if losses else None, model, data, settings)
    return {
        "inherited": f"{share:.3f}", "before": f"{before:.2f}", "result": f"{made.test_result:.2f}",
        "cpu_seconds": f"{time.process_time() - start:.0f}",
    }  # fmt: skip


def table(rows: list[dict[str, str]]) -> str:
    """Return the means of the trainings of each pick and way, in Markdown."""
    text = ["| data | pick | training | n | result, % | params | MACs | layers |",
            "|---|---|---|---:|---:|---:|---:|---:|"]  # fmt: skip
    groups: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        pick = RANDOM if row["pick"].startswith(RANDOM) else row["pick"]
        groups.setdefault((row["cell"], pick, row["way"]), []).append(row)
    for names, group in groups.items():
        values = [float(row["result"]) for row in group]
        spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        params, macs = int(group[0]["model_params"]) / 1e3, int(group[0]["macs"]) / 1e6
        text.append(
            f"| {' | '.join(names)} | {len(values)} | {statistics.mean(values):.2f}{spread} | "
            f"{params:,.0f} K | {macs:,.0f} M | {group[0]['layers']} |"
        )
    return "\n".join(text)


def write_students(cell: str, options: argparse.Namespace) -> None:
    """Write the students of a cell that are sub-networks, one line each, for `diswot rank`."""
    of = {row["pick"]: row["params"] for row in jsonl.read_lines(options.picked)
          if row["cell"] == cell}  # fmt: skip
    written: list[Params] = []
    for row in lines(options.out):
        params = of.get(row["pick"]) if row["cell"] == cell and row["seed"] == "0" else None
        if params and row["way"] == CELLS[cell].way and params not in written:
            written.append(params)
            sizes = {name: row[name] for name in ("result", "model_params", "macs", "layers")}
            append(options.students, {**params, **sizes})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", nargs="?", choices=("teacher", "search", "train"))
    parser.add_argument("--cell", choices=tuple(CELLS), default="camvid")
    parser.add_argument("--data", type=Path, help="the unpacked data set")
    parser.add_argument("--weights", type=Path, help="of the teacher, as safetensors")
    parser.add_argument("--show", action="store_true", help="print the table of what is there")
    parser.add_argument("--out", type=Path, default=Path("docs/tables/dense.csv"))
    parser.add_argument("--picked", type=Path, default=Path("docs/tables/dense_picks.jsonl"))
    parser.add_argument("--picks", default=",".join(PICKS), help="with commas")
    parser.add_argument("--random", type=int, default=0, help="random students of the budget")
    parser.add_argument("--ways", default="", help="of training, with commas")
    parser.add_argument("--candidates", type=int, default=200, help="scored by each search")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--students", type=Path, help="table to write, for diswot rank")
    parser.add_argument("--epochs", type=int, help="in place of those of the cell")
    options = parser.parse_args()
    options.picks = options.picks.split(",") + [f"{RANDOM} {n}" for n in range(options.random)]
    options.ways = [way for way in options.ways.split(",") if way]
    steps = {"teacher": make_teacher, "search": make_picks, "train": make_trainings}
    if options.step is not None:
        steps[options.step](CELLS[options.cell], create_dataset(str(options.data)), options)
    if options.students is not None:
        write_students(options.cell, options)
    if options.show:
        print(table(lines(options.out)))


if __name__ == "__main__":
    main()

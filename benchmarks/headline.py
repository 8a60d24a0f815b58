"""The whole method against its rivals: what each finds within one budget, and what that learns.

    python benchmarks/headline.py search --data CIFAR100 --teacher-weights FILE
    python benchmarks/headline.py train --data CIFAR100 --teacher-weights FILE
    python benchmarks/headline.py --show

Each cell has images, a trained teacher, a space, and the parameters and MACs of a design by hand as
the budget. Within it are picked: the winners of searches by three scores, the largest student by
parameters, and five random students of at least 80 % of one of the two costs. Where the space is
the sub-networks of the teacher, a second design by hand is its widest uniform sub-network.
Each pick is trained in two ways: distilled, with attention maps and standardised logits, and from
its teacher's weights if more than half of its parameters fit, as `diswot distill` does; and alone.

`search` adds a line to a file of picks for each pick, `train` a line to a table for each training,
whose weights it keeps for `headline_int8.py`; what is there is not repeated. `--part 0/2` and
`--part 1/2` share either step between two processes. Choices use training images alone; accuracies
are those of all test images.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import optuna
from headline_table import HAND, architecture, table
from optuna.samplers import PartialFixedSampler
from random_students import random_student
from short_training import (
    CLASSES,
    TEACHER,
    Training,
    append,
    few,
    images_in,
    is_there,
    lines,
    machine,
    measure_result,
    of_classes,
    train_once,
    trained_teacher,
)
from subnet_space import widest_uniforms
from torch import nn
from torchvision.models import mobilenet_v2

from diswot.costs.budget import Budget, Costs
from diswot.costs.counts import count_depth
from diswot.costs.latency import LatencyBench, Setting
from diswot.data.dataset import Dataset
from diswot.errors import UserError
from diswot.models.cifar_resnet import CifarResNet
from diswot.models.inheritance import inherit
from diswot.models.resized import ResizedInput, without_resizing
from diswot.nas.aging_evolution import AgingEvolutionSampler
from diswot.nas.api import search
from diswot.spaces import cifar_cnn
from diswot.spaces.registry import Params, build_network, create_space
from diswot.spaces.validation import Build
from diswot.training.starts import ENOUGH
from diswot.utils import jsonl

TWENTY = tuple(range(0, CLASSES, 5))  # of the hundred classes, by name
TEACHER_SIZE = 32  # pixels a side of the images that the teacher sees
SCORES = ("default", "default_inherited", "diswot", "params")
LAST_WIDTH = "width_3"  # of the sub-networks of the teacher
UNIFORM = "uniform sub-network"
WAYS = {"distilled": "at+kd_standardised", "alone": "alone"}


@dataclass(frozen=True)
class Cell:
    """Images, and the design by hand beside the budget.

    Attributes:
        size: Height and width of the images in pixels.
        classes: Which of the hundred classes.
        images: Training images of each class.
        hand: Builds the design by hand.
        named: What the design by hand is.
        budget: Builds the network whose costs are the budget.
        share: Share of these costs.
        sub_networks: Whether the space is the sub-networks of the teacher; else `cifar_cnn`.
    """

    size: int
    classes: tuple[int, ...]
    images: int
    hand: Callable[[], nn.Module]
    named: str
    budget: Callable[[], nn.Module]
    share: float = 1.0
    sub_networks: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        return 3, self.size, self.size

    @cached_property
    def limit(self) -> Budget:
        made = Costs(self.budget(), self.shape)
        return Budget(self.share * made.params, self.share * made.counts.macs)

    @cached_property
    def space(self) -> Build:
        if self.sub_networks:
            return create_space(f"subnet:{TEACHER}", len(self.classes), self.size)
        return partial(cifar_cnn.build, num_classes=len(self.classes), img_size=self.size)

    def macs_within(self, params: Params) -> float | None:
        """Return the MACs of a student within the budget; None for another."""
        made = Costs(self.build(params), self.shape)
        return None if self.limit.check(made)[0] else made.counts.macs

    def build(self, params: Params | None) -> nn.Module:
        """Build a student; None is the design by hand."""
        return self.hand() if params is None else build_network(self.space, params)


_RESNET20 = partial(CifarResNet, (3, 3, 3), CLASSES)
_MOBILENET = partial(mobilenet_v2, num_classes=len(TWENTY), width_mult=0.35)
CELLS: Mapping[str, Cell] = {
    "100 classes": Cell(
        32, tuple(range(CLASSES)), 100, _RESNET20, "ResNet-20", _RESNET20, sub_networks=True,
    ),
    "64 pixels": Cell(64, TWENTY, 250, _MOBILENET, "MobileNetV2 x 0.35", _MOBILENET),
    # of half width, ResNet-20 itself has 1 % too many parameters
    "quarter": Cell(
        32, TWENTY, 250,
        partial(CifarResNet, (2, 3, 3), len(TWENTY), (8, 16, 32)),
        "ResNet-18 of half width, 2, 3 and 3 blocks",
        partial(CifarResNet, (3, 3, 3), len(TWENTY)), 0.25, sub_networks=True,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class LoadedCell:
    """A cell with its images and its teacher."""

    name: str
    images: Dataset
    teacher: nn.Module

    @cached_property
    def teacher_accuracy(self) -> str:
        """Accuracy of the teacher on the test images, in %."""
        return f"{measure_result(self.teacher, self.images):.2f}"

    @property
    def cell(self) -> Cell:
        return CELLS[self.name]


def load(name: str, options: argparse.Namespace) -> LoadedCell:
    """Read the images and the teacher of a cell."""
    cell = CELLS[name]
    every = images_in(options.data, cell.size)
    some = every if len(cell.classes) == CLASSES else of_classes(every, cell.classes)
    images = replace(some, train=few(some.train, options.images or cell.images))
    if options.tests:
        images = replace(images, test=few(images.test, options.tests))
    teacher = trained_teacher(options.teacher_weights, cell.classes)
    sees = teacher if cell.size == TEACHER_SIZE else ResizedInput(teacher, TEACHER_SIZE).eval()
    return LoadedCell(name, images, sees)


# Picks


def names_of_picks(cell: Cell, randoms: int) -> list[str]:
    hands = [HAND, UNIFORM] if cell.sub_networks else [HAND]
    return [*hands, *SCORES, *(f"random {number}" for number in range(randoms))]


def pick(place: LoadedCell, name: str, candidates: int) -> dict[str, Any]:
    """Pick a student; return a line of the file of picks."""
    start, cell = time.process_time(), place.cell
    params, scored = None, 0
    if name.startswith("random"):
        number = int(name.split()[1])
        params = random_student(cell.space, cell.build, cell.shape, cell.limit, number)
    elif name == UNIFORM:
        params = next(widest_uniforms(cell.macs_within))
    elif name != HAND:
        params, scored = found(place, name, candidates)
    seconds = time.process_time() - start
    model = cell.build(params)
    made = Costs(model, cell.shape)
    return {
        "cell": place.name, "pick": name, "params": params, "scored": scored,
        "search_seconds": round(seconds, 1), "model_params": made.params,
        "macs": made.counts.macs, "layers": count_depth(model), "fits": fitting(place, params),
        **machine(),
    }  # fmt: skip


def found(place: LoadedCell, proxy: str, candidates: int) -> tuple[Params, int]:
    """Return what a search finds, and how many candidates it scored.

    `diswot` compares channels, so each of its candidates has a last map as wide as the teacher's
    classifier reads: the last stage of a sub-network keeps its width.
    """
    space, width = place.cell.space, without_resizing(place.teacher).linear.in_features
    widened = proxy == "diswot" and not place.cell.sub_networks
    sampler = None
    if proxy == "diswot" and place.cell.sub_networks:
        sampler = PartialFixedSampler({LAST_WIDTH: 1.0}, AgingEvolutionSampler(seed=0))
    result = search(
        place.teacher, partial(space, features=width) if widened else space,
        place.images.batch(64), n_trials=candidates, budget=place.cell.limit, scoring=proxy,
        sampler=sampler,
    )  # fmt: skip
    params = dict(result.best.params)
    if widened:
        narrow = build_network(space, {**params, "head": 0})
        params["head"] = 0 if narrow.fc.in_features == width else width
    return params, result.scored


def fitting(place: LoadedCell, params: Params | None) -> float:
    """Return the share of a student's parameters that it can inherit from its teacher."""
    try:
        return round(inherit(without_resizing(place.teacher), place.cell.build(params)).share, 4)
    except UserError:
        return 0.0


def latency(row: Mapping[str, Any], others: Iterable[Mapping[str, Any]]) -> float:
    """Return the milliseconds of one image, measured once for each student."""
    for other in others:
        if (other["cell"], architecture(other)) == (row["cell"], architecture(row)):
            return other["latency_ms"]
    cell = CELLS[row["cell"]]
    bench = LatencyBench(lambda _: cell.build(row["params"]), Setting(cell.shape))
    return round(1e3 * bench({}).seconds, 3)


def wanted_picks(options: argparse.Namespace) -> list[tuple[str, str]]:
    """Return the cells and the names of their picks."""
    return [
        (cell, name)
        for cell in options.cells
        for name in names_of_picks(CELLS[cell], options.random)
        if _wanted(options, cell, name)
    ]


def _wanted(options: argparse.Namespace, cell: str, name: str) -> bool:
    return cell in options.cells and (not options.picks or name in options.picks)


def make_picks(options: argparse.Namespace) -> None:
    """Make the picks of this process that are not there yet."""
    ready = {(row["cell"], row["pick"]) for row in jsonl.read_lines(options.picked)}
    places: dict[str, LoadedCell] = {}
    for cell, name in shared(wanted_picks(options), options.part):
        if (cell, name) in ready:
            continue
        if cell not in places:
            places = {cell: load(cell, options)}
        row = pick(places[cell], name, options.candidates)
        row["latency_ms"] = latency(row, jsonl.read_lines(options.picked))
        jsonl.append(options.picked, [row])
        print(row, flush=True)


# Trainings


def trainings(
    picked: list[dict[str, Any]], options: argparse.Namespace
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield a pick and the identity of each training, seed by seed; random picks have one seed.

    Picks that are the same student are trained once.
    """
    for seed in range(options.seeds):
        for row in picked:
            random = row["pick"].startswith("random")
            if not _wanted(options, row["cell"], row["pick"]) or (seed and random):
                continue
            for way in options.ways:
                yield row, {
                    "cell": row["cell"], "architecture": architecture(row), "way": way,
                    "seed": seed, "epochs": options.epochs,
                    "images": options.images or CELLS[row["cell"]].images,
                }  # fmt: skip


def train(
    place: LoadedCell, row: Mapping[str, Any], key: Mapping[str, Any], weights: Path
) -> dict[str, Any]:
    """Train once and write the weights; return the results of a line of the table."""
    way, epochs = key["way"], key["epochs"]
    start = "teacher" if way != "alone" and row["fits"] > ENOUGH else "fresh"
    plan = Training(WAYS[way], epochs, start, key["seed"])
    before, build = time.process_time(), partial(place.cell.build, row["params"])
    made = train_once(place.teacher, place.images, build, plan, weights)
    seconds = time.process_time() - before
    accuracy = made[f"epoch{epochs}"]
    kept = {name: value for name, value in made.items() if not name.startswith("epoch")}
    return {
        "accuracy": accuracy,
        "start": start,
        "teacher": place.teacher_accuracy,
        "cpu_seconds": f"{seconds:.0f}",
        **kept,
    }


def make_trainings(options: argparse.Namespace) -> None:
    """Run the trainings of this process whose lines are not there yet."""
    picked = list(jsonl.read_lines(options.picked))
    made = {(row["cell"], row["pick"]) for row in picked}
    if missing := [" ".join(each) for each in wanted_picks(options) if each not in made]:
        raise SystemExit(f"not picked yet, run search: {', '.join(missing)}")
    unique = {tuple(key.values()): (row, key) for row, key in trainings(picked, options)}
    places: dict[str, LoadedCell] = {}
    for row, key in shared(list(unique.values()), options.part):
        if is_there(options.out, key):
            continue
        name = row["cell"]
        if name not in places:
            places[name] = load(name, options)
        result = train(places[name], row, key, weights_file(options, key))
        sizes = {name: row[name] for name in ("model_params", "macs", "layers", "latency_ms")}
        line = {**key, **sizes, **result}
        append(options.out, line)
        print(line, flush=True)


def weights_file(options: argparse.Namespace, key: Mapping[str, Any]) -> Path:
    """Return where the weights of a training are kept."""
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    return Path(options.weights, f"{name}.safetensors")


def shared(work: list[Any], part: str) -> list[Any]:
    """Return the part of the work that is this process's, such as 0/2."""
    number, count = map(int, part.split("/"))
    return work[number::count]


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Return the options of the command line, of these and those that the parser has."""
    parser.add_argument("--data", type=Path, help="CIFAR-100 as a folder of images")
    parser.add_argument("--teacher-weights", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/tables/headline.csv"))
    parser.add_argument("--picked", type=Path, default=Path("docs/tables/headline_picks.jsonl"))
    parser.add_argument(
        "--weights", type=Path, default=Path("runs/headline"), help="folder of the trained weights"
    )
    parser.add_argument("--part", default="0/1", help="which of how many processes this one is")
    parser.add_argument("--cells", default=",".join(CELLS), help="with commas")
    parser.add_argument("--picks", default="", help="only these, with commas")
    parser.add_argument("--ways", default=",".join(WAYS), help="of training, with commas")
    parser.add_argument("--candidates", type=int, default=500, help="scored by each search")
    parser.add_argument("--random", type=int, default=5, help="random students of each cell")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--images", type=int, help="training images of each class")
    parser.add_argument("--tests", type=int, help="test images of each class, to try the script")
    options = parser.parse_args()
    options.cells, options.ways = options.cells.split(","), options.ways.split(",")
    options.picks = [name for name in options.picks.split(",") if name]
    return options


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", nargs="?", choices=("search", "train"))
    parser.add_argument("--show", action="store_true", help="print the table of what is there")
    options = parsed(parser)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if options.step is not None:
        {"search": make_picks, "train": make_trainings}[options.step](options)
    if options.show:
        hands = {name: cell.named for name, cell in CELLS.items()}
        print(table(list(jsonl.read_lines(options.picked)), lines(options.out), hands))


if __name__ == "__main__":
    main()

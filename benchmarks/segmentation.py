"""A small network for segmentation: what a search finds, against designs by hand of its cost.

    python benchmarks/segmentation.py teacher --data CAMVID --weights FILE
    python benchmarks/segmentation.py search --data CAMVID --weights FILE
    python benchmarks/segmentation.py train --data CAMVID --weights FILE
    python benchmarks/segmentation.py --show

CamVid at 240 x 180 pixels, 11 classes, 367 training and 233 test images. The teacher is a feature
pyramid over a small ResNet, trained on the labels from random weights. The budget is the cost of
the same network with half of the channels, the design by hand. The space is the sub-networks of the
teacher, and all students that are distilled start from its weights; alone, a student starts from
random weights. Choices use training images alone; the mean IoU is that of the test images after
the last epoch. Each step adds lines to its file; what is there is not repeated.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from short_training import append, lines, machine
from subnet_space import widest_uniforms
from timm.models.resnet import BasicBlock, ResNet
from torch import nn

from diswot.costs.budget import Budget, Costs
from diswot.costs.counts import count_depth
from diswot.data.dataset import Dataset
from diswot.data.registry import create_dataset
from diswot.models.backbones import StageMaps
from diswot.models.inheritance import inherit
from diswot.models.initialization import fresh
from diswot.models.weights import load_weights
from diswot.nas.api import search
from diswot.spaces.dense import PyramidSegmenter
from diswot.spaces.registry import Params, build_network, create_space
from diswot.training.batches import augmented_batches
from diswot.training.distill import distill
from diswot.training.evaluation import measure_result
from diswot.training.recipe import Recipe, parse_losses
from diswot.utils import files, jsonl

CLASSES, WIDTH, PYRAMID = 11, 32, 64
HAND, UNIFORM = "by hand", "uniform sub-network"
PICKS = (HAND, UNIFORM, "default_inherited", "params")
BATCH = 8
# losses beside the cross-entropy, whose weight is 1; weights as published, or of its order
DISTILLERS: Mapping[str, str] = {
    "alone": "",
    "labels": "",
    "kd": "kd:1",
    "dist": "dist:1",
    "cwd": "cwd:3",
    "sp": "sp:3000",
    "diswot_class": "diswot_class",
}


def network(width: int = WIDTH, pyramid: int = PYRAMID, num_classes: int = CLASSES) -> nn.Module:
    """Build a feature pyramid over a ResNet-18 of other widths."""
    channels = tuple(width * 2**stage for stage in range(4))
    body = ResNet(
        BasicBlock, [2] * 4, num_classes=0, channels=channels, stem_type="deep",
        stem_width=width // 2,
    )  # fmt: skip
    names = [f"layer{stage}" for stage in range(1, 5)]
    return PyramidSegmenter(StageMaps(body, {n: n for n in names}), channels, pyramid, num_classes)


def teacher_recipe(epochs: int) -> Recipe:
    """Return the settings of the teacher's training."""
    return Recipe(
        epochs=epochs, batch_size=BATCH, lr=0.05, schedule="onecycle", area=0.3, flip=True,
        losses={},
    )  # fmt: skip


def recipe(distiller: str, epochs: int, seed: int) -> Recipe:
    """Return the settings of a student's training."""
    given = DISTILLERS[distiller]
    return Recipe(
        epochs=epochs, batch_size=BATCH, lr=0.05 if distiller == "alone" else 0.02,
        schedule="onecycle", area=0.3, flip=True, seed=seed,
        losses=parse_losses(given) if given else {},
    )  # fmt: skip


def make_teacher(options: argparse.Namespace) -> None:
    """Train the teacher, unless its weights are there."""
    if options.weights.exists():
        return
    model = fresh(network, "default", 0)
    made = distill(
        None, model, images(options), teacher_recipe(options.teacher_epochs),
        on_epoch=lambda row: print(row, flush=True),
    )  # fmt: skip
    files.save_weights(model, options.weights)
    print(f"teacher: {made.test_miou:.2f} % mIoU in {made.seconds:.0f} s", flush=True)


def images(options: argparse.Namespace) -> Dataset:
    return create_dataset(str(options.data))


def load_teacher(options: argparse.Namespace) -> nn.Module:
    model = network()
    load_weights(model, options.weights)
    return model.eval()


def build(options: argparse.Namespace, params: Params | None) -> nn.Module:
    """Build a student; None is the design by hand."""
    if params is None:
        return network(WIDTH // 2, PYRAMID // 2)
    return build_network(space(), params)


def space() -> Any:
    return create_space("subnet:benchmarks/segmentation.py:network", CLASSES, 180)


def make_picks(options: argparse.Namespace) -> None:
    """Pick a student by each rule."""
    data = images(options)
    limit = Budget.like(build(options, None), data.image_shape)
    ready = {row["pick"] for row in jsonl.read_lines(options.picked)}
    for pick in options.picks:
        if pick in ready:
            continue
        start, params = time.process_time(), None
        if pick == UNIFORM:
            params = next(widest_uniforms(partial(_macs_within, limit, data.image_shape)))
        elif pick != HAND:
            result = search(
                load_teacher(options), space(), data.batch(BATCH), scoring=pick,
                n_trials=options.candidates, budget=limit,
            )  # fmt: skip
            params = dict(result.best.params)
        seconds = time.process_time() - start
        model = build(options, params)
        made = Costs(model, data.image_shape)
        row = {
            "pick": pick, "params": params, "search_seconds": round(seconds, 1),
            "model_params": made.params, "macs": made.counts.macs, "layers": count_depth(model),
            **machine(),
        }  # fmt: skip
        jsonl.append(options.picked, [row])
        print(row, flush=True)


def _macs_within(limit: Budget, shape: tuple[int, int, int], params: Params) -> float | None:
    made = Costs(build_network(space(), params), shape)
    return None if limit.check(made)[0] else made.counts.macs


def trainings(options: argparse.Namespace) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield a pick and the identity of each training, seed by seed."""
    for seed in range(options.seeds):
        for row in jsonl.read_lines(options.picked):
            for way in options.ways:
                if row["pick"] in options.picks:
                    yield row, {"pick": row["pick"], "way": way, "seed": seed,
                                "epochs": options.epochs}  # fmt: skip


def make_trainings(options: argparse.Namespace) -> None:
    """Run the trainings whose lines are not there yet."""
    data, teacher = images(options), load_teacher(options)
    for row, key in trainings(options):
        if any(all(line[k] == str(v) for k, v in key.items()) for line in lines(options.out)):
            continue
        sizes = {name: row[name] for name in ("model_params", "macs", "layers")}
        made = train(teacher, data, partial(build, options, row["params"]), key)
        line = {**key, **sizes, **made, **machine()}
        append(options.out, line)
        print(line, flush=True)


def train(teacher: nn.Module, data: Dataset, make: Any, key: Mapping[str, Any]) -> dict[str, Any]:
    """Train once; return the results of a line of the table."""
    settings = recipe(key["way"], key["epochs"], key["seed"])
    start = time.process_time()
    model, share = fresh(make, "default", key["seed"]), 0.0
    if key["way"] != "alone":
        share = inherit(teacher, model, augmented_batches(data, settings)).share
    before = measure_result(model, data)
    made = distill(teacher if settings.losses else None, model, data, settings)
    return {
        "inherited": f"{share:.3f}", "before": f"{before:.2f}", "miou": f"{made.test_miou:.2f}",
        "cpu_seconds": f"{time.process_time() - start:.0f}",
    }  # fmt: skip


def show(options: argparse.Namespace) -> str:
    """Return the table of what is there, in Markdown."""
    text = [
        "| pick | training | n | mIoU, % | params | MACs | layers |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    groups: dict[tuple[str, str], list[dict[str, str]]] = {}
    for line in lines(options.out):
        groups.setdefault((line["pick"], line["way"]), []).append(line)
    for (pick, way), rows in sorted(groups.items()):
        values = [float(row["miou"]) for row in rows]
        spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        first = rows[0]
        text.append(
            f"| {pick} | {way} | {len(rows)} | {statistics.mean(values):.2f}{spread} | "
            f"{int(first['model_params']) / 1e3:,.0f} K | {int(first['macs']) / 1e6:,.0f} M | "
            f"{first['layers']} |"
        )
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", nargs="?", choices=("teacher", "search", "train"))
    parser.add_argument("--data", type=Path, help="CamVid as a folder of images and masks")
    parser.add_argument("--weights", type=Path, help="of the teacher, as safetensors")
    parser.add_argument("--show", action="store_true", help="print the table of what is there")
    parser.add_argument("--out", type=Path, default=Path("docs/tables/segmentation.csv"))
    parser.add_argument("--picked", type=Path, default=Path("docs/tables/segmentation_picks.jsonl"))
    parser.add_argument("--picks", default=",".join(PICKS), help="with commas")
    parser.add_argument("--ways", default="alone,cwd", help="of training, with commas")
    parser.add_argument("--candidates", type=int, default=200, help="scored by each search")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--teacher-epochs", type=int, default=40)
    options = parser.parse_args()
    options.picks, options.ways = options.picks.split(","), options.ways.split(",")
    steps = {"teacher": make_teacher, "search": make_picks, "train": make_trainings}
    if options.step is not None:
        steps[options.step](options)
    if options.show:
        print(show(options))


if __name__ == "__main__":
    main()

"""What scoring and searching cost, as ratios measured in one run. `make bench` runs it.

(a) Scoring a student over its bare forward pass, without and with building and initialising it.
(b) The published procedure, which rebuilds the teacher and runs forward and backward through both
    networks for every candidate, over ours for the same candidates.
(c) The search engine's own cost per candidate: sampler, journal on disk, bookkeeping.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from functools import partial

import torch
from optuna.trial import BaseTrial
from timing import footer, in_turn
from torch import nn
from torch.nn.functional import cross_entropy, normalize

from diswot.cli import console
from diswot.data.dataset import Batch
from diswot.data.registry import create_dataset
from diswot.models.initialization import fresh
from diswot.models.registry import create_teacher
from diswot.nas.api import search
from diswot.proxies.scorer import scorer
from diswot.spaces import nasbench201
from diswot.spaces.registry import Params, build_network, create_space

CELL = "|nor_conv_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"
STUDENTS: dict[str, tuple[str, Params]] = {
    "S0 1-1-1": ("s0", {"blocks1": 1, "blocks2": 1, "blocks3": 1}),
    "S0 3-3-3 (ResNet-20)": ("s0", {"blocks1": 3, "blocks2": 3, "blocks3": 3}),
    "S0 7-7-7 (ResNet-44)": ("s0", {"blocks1": 7, "blocks2": 7, "blocks3": 7}),
    "NAS-Bench-201 cell": ("nasbench201", nasbench201.from_string(CELL)),
}


def builder(name: str) -> partial[nn.Module]:
    space, params = STUDENTS[name]
    return partial(build_network, create_space(space, 100), params)


def scoring(batch: Batch, turns: int) -> None:
    rows = []
    fixed = scorer(create_teacher("resnet56", 100), [batch])
    for name in STUDENTS:
        build = builder(name)
        model = fresh(build, "gaussian", 0)

        def bare(model: nn.Module) -> None:
            with torch.inference_mode():
                model(batch.images)

        times = in_turn(
            {
                "score": lambda model=model: fixed.score([model], ["diswot"]),
                "bare": partial(bare, model),
                "build": lambda build=build: fixed.score(fixed.students(build), ["diswot"]),
            },
            turns,
        )
        cost = f"{1e3 * times['bare'].median:.1f} ms"
        ratios = [times[which].over(times["bare"]) for which in ("score", "build")]
        rows.append([name, cost, *ratios])
    console.table(
        "(a) scoring one student over its bare forward pass; target 1.25",
        ["student", "bare pass", "observe, compare", "and build, initialise"],
        rows,
    )


def published(build: partial[nn.Module], batch: Batch) -> float:
    """The published procedure for one candidate, as the issue of speed describes it."""
    seen = []
    for make in (partial(create_teacher, "resnet56", 100), build):
        model = fresh(make, "gaussian", 0).to(batch.images.device)
        maps: list[torch.Tensor] = []
        handle = model.layer3.register_forward_hook(lambda *a, maps=maps: maps.append(a[2]))
        cross_entropy(model(batch.images), batch.labels).backward()
        handle.remove()
        gradient = model.fc.weight.grad
        channels = normalize(gradient[:, :, None] * gradient[:, None, :], dim=2)
        flat = maps[0].detach().flatten(1)
        seen.append((channels, normalize(flat @ flat.T)))
    (semantic_t, relation_t), (semantic_s, relation_s) = seen
    semantic = (semantic_t - semantic_s).square().sum() / semantic_t[..., 0].numel()
    return -float(semantic) - float((relation_t - relation_s).square().mean())


def procedures(batch: Batch, turns: int) -> None:
    plain = Batch(batch.images.contiguous(), batch.labels)
    score = scorer(create_teacher("resnet56", 100), [batch])
    rows, totals = [], [0.0, 0.0]
    for name in [n for n in STUDENTS if n.startswith("S0")]:
        build = builder(name)
        times = in_turn(
            {
                "published": lambda build=build: published(build, plain),
                "ours": lambda build=build: score.score(score.students(build), ["diswot"]),
            },
            turns,
        )
        spent = [1e3 * times[which].median for which in ("published", "ours")]
        totals = [total + cost for total, cost in zip(totals, spent, strict=True)]
        row = [f"{cost:.0f} ms" for cost in spent]
        rows.append([name, *row, times["published"].over(times["ours"])])
    rows.append(["together", *(f"{t:.0f} ms" for t in totals), f"{totals[0] / totals[1]:.2f}"])
    console.table(
        "(b) the published procedure over ours, per candidate; target at least 10",
        ["student", "published", "ours", "ratio"],
        rows,
    )


class Pebble(nn.Module):
    """A network that costs nothing to build: what is left is the engine."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(1, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(images.mean((1, 2, 3))[:, None])


def pebbles(trial: BaseTrial) -> nn.Module:
    for edge in range(6):
        trial.suggest_categorical(f"edge{edge}", ["a", "b", "c", "d", "e"])
    return Pebble()


def engine(trials: int) -> None:
    batch = create_dataset("noise", num_classes=10, img_size=8).batch(4)
    teacher = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)
    )
    rows = []
    for sampler in ("evolution", "random", "tpe", "nsga2"):
        with tempfile.TemporaryDirectory() as folder:
            marks = [time.perf_counter()]
            search(
                teacher,
                pebbles,
                batch,
                n_trials=trials,
                sampler=sampler,
                scoring="params",
                study=folder,
                callbacks=[lambda progress, marks=marks: marks.append(time.perf_counter())],
            )
        steps = sorted(b - a for a, b in itertools.pairwise(marks[1:]))
        half = len(steps) // 2
        rows.append(
            [sampler, f"{1e3 * steps[half]:.1f} ms", f"{1e3 * steps[-len(steps) // 20]:.1f} ms"]
        )
    console.table(
        f"(c) the engine's own cost per candidate over {trials} trials; target 8 ms",
        ["sampler", "median", "95th percentile"],
        rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--trials", type=int, default=500)
    options = parser.parse_args()
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    batch = create_dataset("noise", num_classes=100).batch(64)
    scoring(batch, options.turns)
    procedures(batch, options.turns)
    engine(options.trials)
    print(footer(options.turns))


if __name__ == "__main__":
    main()

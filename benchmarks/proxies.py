"""What each proxy costs, as a ratio to one bare forward pass of the same network and batch.

On three networks row by row; some rows on a network for segmentation; and on networks drawn at
random from the two spaces, which is what a search meets, all forward rows together.

The bare pass runs in inference mode with batch statistics, as scoring does. The rows that need but
a forward pass of a network with Gaussian weights share one: all of them together are timed as well.
The default score and its parts have Kaiming weights, and so a pass of their own.

What is left of the cost on ResNet-20, in shares of the bare pass, by processor time and roughly:
about 0.17 is the calls of many small operations, whatever the size (as with 2 images of 8 pixels);
0.13 the codes of rectifiers (naswot), 0.11 of it inner products of all pairs of samples in bytes,
near the processor's peak; 0.04 the same of the maps (relation, sp, cka), 0.06 inner products of
channels (nst, ickd, kdsvd, fsp), and the rest reads maps once more. The first of these take B
multiply-adds a unit, where a 3 x 3 convolution of C channels takes 9 C: so the narrowest and
shallowest network has the highest ratio.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import optuna
import torch
from timing import footer, in_turn
from torch import nn

from diswot.cli import console
from diswot.data.dataset import Batch
from diswot.data.registry import create_dataset
from diswot.models.initialization import fresh
from diswot.models.registry import create_teacher
from diswot.proxies.registry import PROXIES
from diswot.proxies.scorer import NotScored, Scorer, scorer
from diswot.spaces import nasbench201
from diswot.spaces.registry import build_network, create_space

CELL = "|nor_conv_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"
STUDENTS = {
    "S0 3-3-3 (ResNet-20)": ("s0", {"blocks1": 3, "blocks2": 3, "blocks3": 3}),
    "S0 7-7-7 (ResNet-44)": ("s0", {"blocks1": 7, "blocks2": 7, "blocks3": 7}),
    "NAS-Bench-201 cell": ("nasbench201", nasbench201.from_string(CELL)),
}
DENSE = "torchvision:lraspp_mobilenet_v3_large"
DENSE_ROWS = ("diswot", "relation", "kd", "naswot", "default")
DENSE_SHAPE = (8, 180, 240)
SAMPLE = ("s0", "nasbench201")
GAUSSIAN = tuple(name for name, row in PROXIES.items() if row.init == "gaussian")
TOGETHER, TEACHER_FREE = "all forward rows together", "those without a teacher together"


def rows(score: Scorer, model: nn.Module, names: Sequence[str], turns: int) -> list[list[str]]:
    """Time every row on one student; each turn runs everything once."""
    forward = [name for name in GAUSSIAN if PROXIES[name].cost == "forward"]
    groups = {TOGETHER: forward, TEACHER_FREE: [n for n in forward if not PROXIES[n].needs_teacher]}

    def run(names: Sequence[str]) -> object:
        return score.score([model], names)

    def bare() -> None:
        with torch.inference_mode():
            model(score.batches[0].images)

    work: dict[str, Callable[[], object]] = {"bare": bare}
    work |= {name: partial(run, group) for name, group in groups.items()}
    work |= {name: partial(run, [name]) for name in names}
    times = in_turn(work, turns, warm_up=1)
    costs = {name: f"{len(group)} forward" for name, group in groups.items()}
    costs |= {name: PROXIES[name].cost for name in names}
    lines = [["bare forward pass", "", f"{1e3 * times['bare'].median:.1f} ms", "1"]]
    for name, cost in costs.items():
        milliseconds = f"{1e3 * times[name].median:.1f} ms"
        lines.append([name, cost, milliseconds, times[name].over(times["bare"])])
    return lines


def dense_rows(turns: int) -> list[list[str]]:
    """Time some rows on a network for segmentation, whose rows are pixels."""
    random, (count, height, width) = torch.Generator().manual_seed(0), DENSE_SHAPE
    images = torch.randn(count, 3, height, width, generator=random)
    labels = torch.randint(11, DENSE_SHAPE, generator=random)
    batch = Batch(images.contiguous(memory_format=torch.channels_last), labels)
    build = partial(create_teacher, DENSE, 11, height)
    score = scorer(build(), [batch], DENSE_ROWS)
    model = fresh(build, "gaussian", 0)

    def bare() -> None:
        with torch.inference_mode():
            model(batch.images)

    work: dict[str, Callable[[], object]] = {"bare": bare}
    work |= {name: partial(score.score, [model], [name]) for name in DENSE_ROWS}
    times = in_turn(work, turns, warm_up=1)
    lines = [["bare forward pass", f"{1e3 * times['bare'].median:.0f} ms", "1"]]
    for name in DENSE_ROWS:
        milliseconds = f"{1e3 * times[name].median:.0f} ms"
        lines.append([name, milliseconds, times[name].over(times["bare"])])
    return lines


def sample(score: Scorer, space: str, count: int, turns: int) -> list[list[str]]:
    """Time all forward rows together on networks of a space, drawn evenly from a fixed seed.

    Those that cut off the images are passed over: no row is computed for them.
    """
    build, sampler = create_space(space, 100), optuna.samplers.RandomSampler(seed=0)
    study = optuna.create_study(sampler=sampler)
    forward = [name for name in GAUSSIAN if PROXIES[name].cost == "forward"]
    lines, totals = [], {"bare": 0.0, "score": 0.0}
    while len(lines) < count:
        trial = study.ask()
        model = fresh(partial(build, trial), "gaussian", 0)
        if all(isinstance(end, NotScored) for (end,) in score.outcomes([model], forward).values()):
            continue

        def bare(model: nn.Module = model) -> None:
            with torch.inference_mode():
                model(score.batches[0].images)

        work = {"bare": bare, "score": partial(score.outcomes, [model], forward)}
        times = in_turn(work, turns, warm_up=1)
        totals = {name: total + times[name].median for name, total in totals.items()}
        milliseconds = f"{1e3 * times['bare'].median:.1f} ms"
        lines.append([_short(trial.params), milliseconds, times["score"].over(times["bare"])])
    mean = f"{1e3 * totals['bare'] / count:.1f} ms"
    return [
        *lines,
        ["all of them: time over time", mean, f"{totals['score'] / totals['bare']:.2f}"],
    ]


def _short(params: Mapping[str, object]) -> str:
    return "-".join(str(value) for value in params.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--only", default=",".join(PROXIES), help="names with commas")
    parser.add_argument("--sample", type=int, default=16, help="random networks a space")
    options = parser.parse_args()
    names = options.only.split(",")
    torch.set_num_threads(1)
    batch = create_dataset("noise", num_classes=100).batch(options.batch_size)
    score = scorer(create_teacher("resnet56", 100), [batch])
    for name, (space, params) in STUDENTS.items():
        model = fresh(partial(build_network, create_space(space, 100), params), "gaussian", 0)
        title = f"{name}, batch {options.batch_size}; wanted: {TOGETHER} 1.6, default 4"
        heads = ["proxy", "cost", "time", "over one forward pass"]
        console.table(title, heads, rows(score, model, names, options.turns))
    count, height, width = DENSE_SHAPE
    title = f"{DENSE}, {width} x {height} pixels, batch {count}; wanted: diswot 1.3"
    console.table(title, ["proxy", "time", "over one forward pass"], dense_rows(options.turns))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for space in SAMPLE:
        title = f"{options.sample} of {space} at random, batch {options.batch_size}; wanted: 1.6"
        heads = ["network", "bare forward pass", f"{TOGETHER}, over it"]
        console.table(title, heads, sample(score, space, options.sample, options.turns))
    print(footer(options.turns))


if __name__ == "__main__":
    main()

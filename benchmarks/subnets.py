"""Whether scores of inherited weights see which sub-network of a teacher is the better student.

    python benchmarks/subnets.py table --data DIR --teacher-weights FILE
    python benchmarks/subnets.py scores --data DIR --teacher-weights FILE
    python benchmarks/subnets.py costs --data DIR --teacher-weights FILE
    python benchmarks/subnets.py search --data DIR --teacher-weights FILE
    python benchmarks/subnets.py train --data DIR --teacher-weights FILE --seeds 1
    python benchmarks/subnets.py --show

`table` trains sub-networks drawn at random for one epoch, `scores` scores them, `costs` times the
scores, `search` picks sub-networks within budgets, and `train` trains the picks. Each step adds
lines to its table, and leaves out what is there. Scores and picks use training images alone;
accuracies are those of all 10,000 test images.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from pages import markdown, spread
from short_training import School, Training, append, lines
from subnet_picks import EPOCHS, LONG, SIZE_WEIGHT, SIZED, make_picks, show_found, train_picks
from subnet_space import DISTILLER, SAMPLE, TABLES, build, costs, sample
from timing import footer, in_turn

from diswot.models.initialization import INHERITED
from diswot.proxies.registry import by_init, get_proxy
from diswot.proxies.scorer import NotScored, scorer
from diswot.ranking.rank import RankResult, rank
from diswot.ranking.statistics import Array, kendall
from diswot.spaces.registry import Params

TABLE, SCORED = TABLES / "subnets.csv", TABLES / "subnets_scores.csv"
SIZES = ("params", "macs", "depth", "size")
PREDICTIONS = ("agreement", "agreement_top1", "kd_standardised")  # also on more images
PROXIES = ("default", "capacity", "diswot", "semantic_class", "relation", "cka", "kd",
           *PREDICTIONS, "naswot", "zen", *SIZES)  # fmt: skip
FRESH, BEFORE, PLAIN = "fresh", "before", "default"  # PLAIN: torch's own initialisation
BATCHES, SCORE_SEEDS = (64, 256, 1000), 3
TIMED = (("default", 64), ("kd_standardised", 64), *(("agreement", size) for size in BATCHES))


def make_table(school: School) -> None:
    """Train each sub-network of the sample for one epoch."""
    ready = {int(row["number"]) for row in lines(TABLE)}
    order = np.random.default_rng(0).permutation(SAMPLE).tolist()
    chosen = sample()
    for number in (each for each in order if each not in ready):
        params = chosen[number]
        row = school.train(partial(build, params), Training(DISTILLER, 1))
        append(TABLE, {"number": number, **params, **costs(params), **row})


def make_scores(school: School) -> None:
    """Score each sub-network of the sample, with fresh and inherited weights."""
    ready = {(r["number"], r["weights"], r["images"], r["seed"]) for r in lines(SCORED)}
    for weights, images, seed in conditions():
        missing = [
            (number, params)
            for number, params in sorted(sample().items())
            if (str(number), weights, str(images), str(seed)) not in ready
        ]
        if missing:
            proxies = PROXIES if images == BATCHES[0] else PREDICTIONS
            score = score_of(school, weights, images, seed, proxies)
            for number, params in missing:
                row = {"number": number, "weights": weights, "images": images, "seed": seed}
                append(SCORED, row | score(params))
            print(weights, images, seed, flush=True)


def conditions() -> Iterator[tuple[str, int, int]]:
    for seed in range(SCORE_SEEDS):
        for weights in (INHERITED, FRESH):
            yield weights, BATCHES[0], seed
        yield from ((INHERITED, images, seed) for images in BATCHES[1:])


def score_of(
    school: School, weights: str, images: int, seed: int, proxies: tuple[str, ...]
) -> Callable[[Params], dict[str, Any]]:
    """Return the function that scores a sub-network.

    Fresh weights are those of each proxy's definition; `agreement` has no such.
    """
    batch = school.images.batch(images, seed)
    groups = by_init(proxies, INHERITED if weights == INHERITED else None)
    if weights == FRESH:
        groups[PLAIN] = groups.pop(INHERITED)
    ready = [
        (names, scorer(school.teacher, [batch], names, init=init, seed=seed))
        for init, names in groups.items()
    ]

    def score(params: Params) -> dict[str, Any]:
        found: dict[str, Any] = dict.fromkeys(PROXIES, "")
        for names, fixed in ready:
            values = fixed.outcomes(fixed.students(partial(build, params)), names)
            found |= {name: number(values[name][0]) for name in names}
        return found

    return score


def number(value: float | NotScored) -> str:
    if isinstance(value, NotScored):
        return "-inf" if value.value == -math.inf else ""
    return f"{value:.8g}"


def print_costs(school: School) -> None:
    """Print how long a candidate takes to build and score, over how long `default` takes."""
    work = {f"{name}, {images} images": timed(school, name, images) for name, images in TIMED}
    times = in_turn(work, SAMPLE)
    base = next(iter(times.values()))
    rows = [[name, f"{1e3 * t.median:.0f}", t.over(base)] for name, t in times.items()]
    print(markdown(["score", "median ms", "over the first"], rows), footer(SAMPLE), sep="\n\n")


def timed(school: School, proxy: str, images: int) -> Callable[[], object]:
    """Return a function that builds and scores the next sub-network of the sample."""
    init = INHERITED if proxy in PREDICTIONS else get_proxy(proxy).init
    fixed = scorer(school.teacher, [school.images.batch(images, 0)], [proxy], init=init)
    each = cycle(sample().values())
    return lambda: fixed.outcomes(fixed.students(partial(build, next(each))), [proxy])


@dataclass(frozen=True)
class Columns:
    """Scores of the sample by name, with accuracies after the epoch and parameters."""

    scores: dict[str, list[float]]
    after: list[float]
    params: list[float]

    @property
    def ranked(self) -> RankResult:
        return rank(self.scores, self.after, self.params)


def columns_of(seed: int, images: int, weights: str) -> Columns:
    """Read the scores of one seed, number of images and kind of weights."""
    table = {row["number"]: row for row in lines(TABLE)}
    key = (weights, str(images), str(seed))
    own = [r for r in lines(SCORED) if (r["weights"], r["images"], r["seed"]) == key]
    scores = {p: [float(r[p] or "nan") for r in own] for p in PROXIES if any(r[p] for r in own)}
    params = [float(table[r["number"]]["model_params"]) for r in own]
    if weights == INHERITED:
        pairs = zip(scores["kd_standardised"], params, strict=True)
        scores[SIZED] = [score + SIZE_WEIGHT * math.log(size) for score, size in pairs]
        scores[BEFORE] = [float(table[r["number"]]["before"]) for r in own]
    return Columns(scores, [float(table[r["number"]]["epoch1"]) for r in own], params)


def show_leads(resamples: int = 4000) -> str:
    """Return by how much the tau of `kd_standardised` is above others, by a paired bootstrap."""
    both = {weights: columns_of(0, BATCHES[0], weights) for weights in (FRESH, INHERITED)}
    own = both[INHERITED]
    count = len(own.after)
    draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), resamples)
    weights = np.concatenate([np.ones((1, count)), draws])

    def tau(scores: list[float]) -> Array:
        return kendall(np.array(scores), np.array(own.after), weights)

    cells = []
    for name, kind in (("default", FRESH), ("agreement", INHERITED), ("params", INHERITED)):
        lead = tau(own.scores["kd_standardised"]) - tau(both[kind].scores[name])
        low, high = np.nanpercentile(lead[1:], [2.5, 97.5])
        cells.append([name, f"{lead[0]:.2f}", f"{low:.2f} to {high:.2f}"])
    return markdown(["tau of kd_standardised above that of", "by", "95 % interval"], cells)


def taus(weights: str, images: int) -> dict[str, list[str]]:
    """Return of each score the tau with its interval, of seed 0, and the spread over the seeds."""
    columns = [columns_of(seed, images, weights) for seed in range(SCORE_SEEDS)]
    seeds = [each.ranked.rankings for each in columns]
    found = {}
    for name, first in seeds[0].items():
        tau = first.statistics["kendall"]
        own = f"{tau.value:.2f} ({tau.low:.2f} to {tau.high:.2f})"
        over = spread([each[name].statistics["kendall"].value for each in seeds])
        found[name] = [own, "-" if name in (*SIZES, BEFORE) else over, str(first.n)]
    return found


def show_scores() -> str:
    """Return Kendall's tau of each score, with fresh and inherited weights."""
    fresh, inherited = taus(FRESH, BATCHES[0]), taus(INHERITED, BATCHES[0])
    cells = []
    for name, (own, over, n) in inherited.items():
        both = name in fresh and name not in SIZES
        cells.append([name, *(fresh[name][:2] if both else "--"), own, over, n])
    columns = ["score", "fresh: tau", "of 3 seeds", "inherited: tau", "of 3 seeds", "n"]
    return markdown(columns, cells)


def show_images() -> str:
    """Return Kendall's tau of the scores of predictions, by the number of images."""
    found = {images: taus(INHERITED, images) for images in BATCHES}
    names = (*PREDICTIONS, SIZED)
    cells = [[name, *(found[images][name][1] for images in BATCHES)] for name in names]
    return markdown(["tau of 3 seeds", *(f"{images} images" for images in BATCHES)], cells)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    steps = ("table", "scores", "costs", "search", "train")
    parser.add_argument("step", nargs="?", choices=steps, help="what to do")
    parser.add_argument("--data", type=Path, help="CIFAR-100 as a folder of images")
    parser.add_argument("--teacher-weights", type=Path)
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each pick")
    parser.add_argument("--epochs", type=int, default=EPOCHS, choices=range(1, LONG + 1))
    parser.add_argument("--only", default="", help="picks, with commas, such as half/wide,default")
    parser.add_argument("--show", action="store_true", help="print the tables of what is there")
    options = parser.parse_args()
    if options.show:
        print(show_scores(), show_leads(), show_images(), show_found(), sep="\n\n")
        return
    school = School(options.data, options.teacher_weights)
    only = tuple(filter(None, options.only.split(",")))
    run: dict[str, Callable[[School], None]] = {
        "table": make_table,
        "scores": make_scores,
        "costs": print_costs,
        "search": partial(make_picks, only=only),
        "train": partial(train_picks, seeds=options.seeds, epochs=options.epochs, only=only),
    }
    run[options.step](school)


if __name__ == "__main__":
    main()

"""Whether scores of inherited weights see which sub-network of a teacher is the better student.

    python benchmarks/subnets.py table --data DIR --teacher-weights FILE
    python benchmarks/subnets.py scores --data DIR --teacher-weights FILE
    python benchmarks/subnets.py search --data DIR --teacher-weights FILE
    python benchmarks/subnets.py train --data DIR --teacher-weights FILE --seeds 1
    python benchmarks/subnets.py --show

`table` trains sub-networks drawn at random for one epoch, `scores` scores them, `search` picks
sub-networks within budgets, by scores, by hand and at random, and `train` trains the picks. Each
step adds lines to its table, and leaves out what is there. Scores and picks use training images
alone; accuracies are those of all 10,000 test images.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.samplers import RandomSampler
from pages import markdown, spread
from short_training import CLASSES, TEACHER, School, Training, append, lines, machine
from torch import nn

import diswot
from diswot.costs.counts import count_depth, count_macs, count_params
from diswot.proxies.registry import by_init
from diswot.proxies.scorer import NotScored, scorer
from diswot.ranking.rank import RankResult, rank
from diswot.spaces.registry import Params, build_network, create_space

TABLES = Path("docs/tables")
TABLE, SCORED = TABLES / "subnets.csv", TABLES / "subnets_scores.csv"
PICKED, FOUND = TABLES / "subnets_picks.csv", TABLES / "subnets_found.csv"
SHAPE, DEPTH, WIDTHS = (3, 32, 32), 5, (0.25, 0.5, 0.75, 1.0)
DISTILLER = "kd_standardised"

SAMPLE, SHARES = 24, (0.15, 0.75)  # sub-networks of the table; their MACs over the teacher's
SIZES = ("params", "macs", "depth", "size")
PREDICTIONS = ("agreement", "agreement_top1", "kd_standardised")  # also on more images
PROXIES = ("default", "capacity", "diswot", "semantic_class", "relation", "cka", "kd",
           *PREDICTIONS, "naswot", "zen", *SIZES)  # fmt: skip
FRESH, INHERITED, PLAIN = "fresh", "inherited", "default"  # PLAIN: torch's own initialisation
BATCHES, SCORE_SEEDS = (64, 256, 1000), 3

TRIALS, SEARCH_BATCH, EPOCHS = 300, 256, 3
BUDGETS = {"half": 0.5, "quarter": 0.25}  # share of the teacher's MACs
STUDENT = {f"depth_{i}": 3 for i in (1, 2, 3)} | {f"width_{i}": 1.0 for i in (1, 2, 3)}
LIKE, LIKE_EPOCHS = "resnet20", 5  # the budget that STUDENT has, and the epochs of start.py


@dataclass(frozen=True)
class Scores:
    """Of which proxy a search takes the highest, on how many images, with which weights."""

    proxy: str
    images: int = SEARCH_BATCH
    init: str | None = None
    trials: int = TRIALS


SEARCHES = {
    "agreement": Scores("agreement"),
    "kd_standardised": Scores("kd_standardised", init=INHERITED),
    "default": Scores("default", 64),
    "params": Scores("params", 64),
}
PICKS = ("agreement", "wide", "narrow", "default", "params", "random_1", "random_2",
         "kd_standardised")  # fmt: skip


@cache
def space() -> Callable[..., nn.Module]:
    return create_space(f"subnet:{TEACHER}", CLASSES)


def build(params: Params) -> nn.Module:
    return build_network(space(), params)


def uniform(depths: tuple[int, int, int], width: float) -> Params:
    """Return the parameters of a sub-network of one width."""
    return {f"depth_{i}": depth for i, depth in enumerate(depths, 1)} | {
        f"width_{i}": width for i in (1, 2, 3)
    }


FULL = uniform((DEPTH,) * 3, 1.0)


@cache
def _costs(params: tuple[tuple[str, Any], ...]) -> dict[str, int]:
    model = build(dict(params))
    return {"model_params": count_params(model), "macs": count_macs(model, SHAPE),
            "layers": count_depth(model)}  # fmt: skip


def costs(params: Params) -> dict[str, int]:
    """Return parameters, MACs of one image and layers."""
    return _costs(tuple(params.items()))


def draws(seed: int) -> Iterator[Params]:
    """Yield random sub-networks without end."""
    study = optuna.create_study(sampler=RandomSampler(seed))
    while True:
        trial = study.ask()
        space()(trial)
        yield dict(trial.params)


def params_of(row: Mapping[str, str]) -> Params:
    """Return the architecture of a line."""
    return {name: type(FULL[name])(row[name]) for name in FULL}


def sample() -> dict[int, Params]:
    """Draw one sub-network from each of `SAMPLE` equal ranges of MACs."""
    low, high = SHARES
    whole, found = costs(FULL)["macs"], {}
    for params in draws(0):
        place = int((costs(params)["macs"] / whole - low) / (high - low) * SAMPLE // 1)
        if 0 <= place < SAMPLE:
            found.setdefault(place, params)
        if len(found) == SAMPLE:
            return found
    raise AssertionError


def make_table(school: School) -> None:
    """Train each sub-network of the sample for one epoch."""
    ready = {int(row["number"]) for row in lines(TABLE)}
    order = np.random.default_rng(0).permutation(SAMPLE).tolist()
    chosen = sample()
    for number in (each for each in order if each not in ready):
        params = chosen[number]
        row = school.train(partial(build, params), Training(DISTILLER, 1))
        note(TABLE, {"number": number, **params, **costs(params), **row})


def note(path: Path, row: Mapping[str, Any]) -> None:
    append(path, row)
    print(row, flush=True)


# Scores


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
    lone = scorer(school.teacher, [batch], ["agreement"], init=INHERITED, seed=seed)

    def score(params: Params) -> dict[str, Any]:
        found: dict[str, Any] = dict.fromkeys(PROXIES, "")
        for names, fixed in ready:
            values = fixed.outcomes(fixed.students(partial(build, params)), names)
            found |= {name: number(values[name][0]) for name in names}
        start = time.process_time()
        lone.outcomes(lone.students(partial(build, params)), ["agreement"])
        return {**found, "agreement_ms": f"{1e3 * (time.process_time() - start):.0f}"}

    return score


def number(value: float | NotScored) -> str:
    if isinstance(value, NotScored):
        return "-inf" if value.lowest else ""
    return f"{value:.8g}"


# Picks


def make_picks(school: School, only: tuple[str, ...] = ()) -> None:
    """Pick sub-networks within each budget, on training images alone."""
    ready = {(row["budget"], row["pick"]) for row in lines(PICKED)}
    for budget, limit in limits().items():
        names = PICKS if budget in BUDGETS else ("agreement", "kd_standardised")
        others = by_hand(limit) | at_random(limit) if budget in BUDGETS else {}
        for pick in names:
            if (budget, pick) in ready or not wanted(budget, pick, only):
                continue
            facts = {"score": "", "scored": "", "images": "", "search_seconds": ""}
            params = others.get(pick)
            if params is None:
                params, facts = searched(school, SEARCHES[pick], limit)
            ordered = {name: params[name] for name in FULL}
            row = {"budget": budget, "pick": pick, **ordered, **costs(ordered), **facts}
            note(PICKED, row | {"torch": machine()["torch"]})


def wanted(budget: str, pick: str, only: tuple[str, ...]) -> bool:
    return not only or pick in only or f"{budget}/{pick}" in only


def limits() -> dict[str, diswot.Budget]:
    whole, student = costs(FULL)["macs"], costs(STUDENT)
    shares = {name: diswot.Budget(max_macs=share * whole) for name, share in BUDGETS.items()}
    like = diswot.Budget(max_params=student["model_params"], max_macs=student["macs"])
    return {**shares, LIKE: like}


def searched(school: School, scores: Scores, limit: diswot.Budget) -> tuple[Params, dict[str, str]]:
    """Return what `diswot.search` finds."""
    start = time.process_time()
    found = diswot.search(
        school.teacher, space(), school.images.batch(scores.images, 0), n_trials=scores.trials,
        budget=limit, scoring=diswot.Scoring(scores.proxy, init=scores.init),
    )  # fmt: skip
    seconds = time.process_time() - start
    return found.best.params, {
        "score": f"{found.best.score:.6g}", "scored": str(found.scored),
        "images": str(scores.images), "search_seconds": f"{seconds:.0f}",
    }  # fmt: skip


def by_hand(limit: diswot.Budget) -> dict[str, Params]:
    """Return the two widest sub-networks of one width and of even depth, as deep as they may be.

    The depths of the stages differ by one at most, and a later stage is not shallower.
    """
    found = []
    even = [d for d in product(range(1, DEPTH + 1), repeat=3) if d[0] <= d[1] <= d[2] <= d[0] + 1]
    for width in reversed(WIDTHS):
        fits = [uniform(d, width) for d in even if inside(uniform(d, width), limit)]
        found += sorted(fits, key=lambda each: costs(each)["macs"])[-1:]
    return dict(zip(("wide", "narrow"), found, strict=False))


def at_random(limit: diswot.Budget, least: float = 0.8) -> dict[str, Params]:
    """Return two random sub-networks that need most of the budget."""
    found: list[Params] = []
    for params in draws(1):
        if inside(params, limit) and costs(params)["macs"] >= least * (limit.max_macs or 0):
            found.append(params)
        if len(found) == 2:
            return {f"random_{i}": each for i, each in enumerate(found, 1)}
    raise AssertionError


def inside(params: Params, limit: diswot.Budget) -> bool:
    return costs(params)["macs"] <= (limit.max_macs or 0)


# Trainings of the picks


def train_picks(school: School, seeds: int, only: tuple[str, ...]) -> None:
    """Train the picks, seed by seed; a sub-network that two ways pick is trained once."""
    for seed in range(seeds):
        for row in lines(PICKED):
            if not wanted(row["budget"], row["pick"], only):
                continue
            params, epochs = params_of(row), LIKE_EPOCHS if row["budget"] == LIKE else EPOCHS
            place = {**params, "epochs": epochs, "seed": seed}
            if any(all(line[k] == str(v) for k, v in place.items()) for line in lines(FOUND)):
                continue
            made = school.train(partial(build, params), Training(DISTILLER, epochs, seed=seed))
            later = {f"epoch{i}": made.pop(f"epoch{i}", "") for i in range(1, LIKE_EPOCHS + 1)}
            note(FOUND, {**place, **costs(params), **later, **made})


# Pages


def ranking(rows: list[dict[str, str]], seed: int, images: int, weights: str) -> RankResult:
    """Compare the scores with the accuracies after one epoch, and before."""
    table = {row["number"]: row for row in lines(TABLE)}
    key = (weights, str(images), str(seed))
    own = [r for r in rows if (r["weights"], r["images"], r["seed"]) == key]
    own = [r for r in own if r["number"] in table]
    columns = {p: [float(r[p] or "nan") for r in own] for p in PROXIES if any(r[p] for r in own)}
    if weights == INHERITED:
        columns["before"] = [float(table[r["number"]]["before"]) for r in own]
    after = [float(table[r["number"]]["epoch1"]) for r in own]
    return rank(columns, after, [float(table[r["number"]]["model_params"]) for r in own])


def show_scores() -> str:
    """Return Kendall's tau of each score: interval for the first seed, spread over all."""
    rows, cells = lines(SCORED), []
    settings = [(weights, BATCHES[0]) for weights in (FRESH, INHERITED)]
    settings += [(INHERITED, images) for images in BATCHES[1:]]
    for weights, images in settings:
        seeds = [ranking(rows, seed, images, weights).rankings for seed in range(SCORE_SEEDS)]
        for name, first in seeds[0].items():
            tau = first.statistics["kendall"]
            values = [each[name].statistics["kendall"].value for each in seeds]
            free = name in (*SIZES, "before")
            if free and (images, weights) != (BATCHES[0], INHERITED):
                continue
            cells.append([
                name, "-" if free else weights, "-" if free else str(images), str(first.n),
                f"{tau.value:.2f}", f"{tau.low:.2f} to {tau.high:.2f}",
                "-" if free else spread(values),
            ])  # fmt: skip
    columns = ["score", "weights", "images", "n", "tau", "95 % interval", "tau of 3 seeds"]
    return markdown(columns, cells)


def show_costs() -> str:
    """Return what `agreement` takes a candidate."""
    rows, cells = lines(SCORED), []
    for images in BATCHES:
        own = [r for r in rows if (r["weights"], r["images"]) == (INHERITED, str(images))]
        taken = [float(r["agreement_ms"]) for r in own]
        low, middle, high = np.percentile(taken, [10, 50, 90])
        cells.append([str(images), f"{middle:.0f}", f"{low:.0f} to {high:.0f}", str(len(own))])
    return markdown(["images", "median ms", "10 to 90 %", "n"], cells)


def show_found() -> str:
    """Return the accuracies of the picks."""
    made, cells = lines(FOUND), []
    budgets = [*BUDGETS, LIKE]
    place = {(b, p): i for i, (b, p) in enumerate(product(budgets, PICKS))}
    for row in sorted(lines(PICKED), key=lambda row: place[row["budget"], row["pick"]]):
        params = {name: row[name] for name in FULL}
        own = [line for line in made if all(line[k] == v for k, v in params.items())]
        epochs = LIKE_EPOCHS if row["budget"] == LIKE else EPOCHS
        own = [line for line in own if line["epochs"] == str(epochs)]
        text = "-".join(row[f"depth_{i}"] for i in (1, 2, 3))
        text += " x " + "-".join(row[f"width_{i}"] for i in (1, 2, 3))
        last = [float(line[f"epoch{epochs}"]) for line in own]
        cells.append([
            row["pick"], row["budget"], text, f"{int(row['model_params']) / 1e3:.0f} K",
            f"{int(row['macs']) / 1e6:.1f} M", row["layers"], row["search_seconds"] or "-",
            own[0]["before"] if own else "-", spread(last) if last else "-", str(len(last)),
        ])  # fmt: skip
    columns = ["pick", "budget", "blocks x widths", "params", "MACs", "layers", "search s",
               "before, %", "after, %", "seeds"]  # fmt: skip
    return markdown(columns, cells)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    steps = ("table", "scores", "search", "train")
    parser.add_argument("step", nargs="?", choices=steps, help="what to do")
    parser.add_argument("--data", type=Path, help="CIFAR-100 as a folder of images")
    parser.add_argument("--teacher-weights", type=Path)
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each pick")
    parser.add_argument("--only", default="", help="picks, with commas, such as half/wide,default")
    parser.add_argument("--show", action="store_true", help="print the tables of what is there")
    options = parser.parse_args()
    if options.show:
        print(show_scores(), show_costs(), show_found(), sep="\n\n")
        return
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    school = School(options.data, options.teacher_weights)
    only = tuple(filter(None, options.only.split(",")))
    run = {"table": make_table, "scores": make_scores, "search": partial(make_picks, only=only),
           "train": partial(train_picks, seeds=options.seeds, only=only)}  # fmt: skip
    run[options.step](school)


if __name__ == "__main__":
    main()

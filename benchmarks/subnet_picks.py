"""Picks of sub-networks within budgets, by scores, by hand and at random, and their trainings."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

from pages import markdown, spread
from short_training import School, Training, append, is_there, lines, machine
from subnet_space import (
    DISTILLER,
    FULL,
    TABLES,
    build,
    costs,
    draws,
    params_of,
    space,
    uniform,
    widest_uniforms,
)

import diswot
from diswot.costs.counts import count_params
from diswot.models.initialization import INHERITED
from diswot.proxies.candidate import Candidate
from diswot.proxies.registry import PROXIES, get_proxy
from diswot.spaces.registry import Params

PICKED, FOUND = TABLES / "subnets_picks.csv", TABLES / "subnets_found.csv"
TRIALS, SEARCH_BATCH, EPOCHS, LONG = 300, 256, 3, 5
BUDGETS = {"half": 0.5, "quarter": 0.25}  # share of the teacher's MACs
STUDENT = uniform((3, 3, 3), 1.0)
LIKE = "resnet20"  # the budget that STUDENT has, which start.py trains for LONG epochs


@dataclass(frozen=True)
class Scores:
    """Of which proxy a search takes the highest, on how many images, with which weights."""

    proxy: str
    images: int = SEARCH_BATCH
    init: str | None = None
    trials: int = TRIALS


SIZED, SIZE_WEIGHT = "kd_standardised+size", 0.3  # chosen on the 24 sub-networks of the table


def sized(candidate: Candidate) -> float:
    """Return the score `kd_standardised` plus a share of the logarithm of the parameters."""
    size = math.log(count_params(candidate.student))
    return get_proxy("kd_standardised").score(candidate) + SIZE_WEIGHT * size


SEARCHES = {
    "agreement": Scores("agreement"),
    "kd_standardised": Scores("kd_standardised", init=INHERITED),
    SIZED: Scores(SIZED, 64, INHERITED),
    "default": Scores("default", 64),
    "default_inherited": Scores("default_inherited", 64),
    "params": Scores("params", 64),
}
PICKS = ("agreement", "wide", "narrow", "default", "params", "random_1", "random_2",
         "kd_standardised", SIZED, "default_inherited")  # fmt: skip


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
            append(PICKED, row | {"torch": machine()["torch"]})


def wanted(budget: str, pick: str, only: tuple[str, ...]) -> bool:
    return not only or pick in only or f"{budget}/{pick}" in only


def limits() -> dict[str, diswot.Budget]:
    whole, student = costs(FULL)["macs"], costs(STUDENT)
    shares = {name: diswot.Budget(max_macs=share * whole) for name, share in BUDGETS.items()}
    like = diswot.Budget(max_params=student["model_params"], max_macs=student["macs"])
    return {**shares, LIKE: like}


def searched(school: School, scores: Scores, limit: diswot.Budget) -> tuple[Params, dict[str, str]]:
    """Return what `diswot.search` finds."""
    PROXIES[SIZED] = replace(get_proxy("kd_standardised"), score=sized)
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
    """Return the two widest sub-networks of one width and of even depth, as deep as they may be."""
    found = widest_uniforms(lambda each: costs(each)["macs"] if inside(each, limit) else None)
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


def train_picks(school: School, seeds: int, epochs: int, only: tuple[str, ...]) -> None:
    """Train the picks, seed by seed; a sub-network that two ways pick is trained once."""
    for seed in range(seeds):
        for row in lines(PICKED):
            if not wanted(row["budget"], row["pick"], only):
                continue
            params = params_of(row)
            length = LONG if row["budget"] == LIKE else epochs
            place = {**params, "epochs": length, "seed": seed}
            if is_there(FOUND, place):
                continue
            made = school.train(partial(build, params), Training(DISTILLER, length, seed=seed))
            later = {f"epoch{i}": made.pop(f"epoch{i}", "") for i in range(1, LONG + 1)}
            append(FOUND, {**place, **costs(params), **later, **made})


def after(made: list[dict[str, str]], epochs: int) -> tuple[str, str]:
    """Return the accuracy after the last epoch, mean and deviation over seeds, and their number."""
    found = [float(line[f"epoch{epochs}"]) for line in made if line["epochs"] == str(epochs)]
    return (spread(found) if found else "-"), str(len(found))


def show_found() -> str:
    """Return the accuracies of the picks."""
    made, cells = lines(FOUND), []
    budgets = [*BUDGETS, LIKE]
    place = {(b, p): i for i, (b, p) in enumerate(product(budgets, PICKS))}
    last = len(place)  # picks of scores that are gone
    for row in sorted(lines(PICKED), key=lambda row: place.get((row["budget"], row["pick"]), last)):
        params = {name: row[name] for name in FULL}
        own = [line for line in made if all(line[k] == v for k, v in params.items())]
        text = "-".join(row[f"depth_{i}"] for i in (1, 2, 3))
        text += " x " + "-".join(row[f"width_{i}"] for i in (1, 2, 3))
        cells.append([
            row["pick"], row["budget"], text, f"{int(row['model_params']) / 1e3:.0f} K",
            f"{int(row['macs']) / 1e6:.1f} M", row["layers"], row["search_seconds"] or "-",
            own[0]["before"] if own else "-", *after(own, EPOCHS), *after(own, LONG),
        ])  # fmt: skip
    columns = [
        "pick",
        "budget",
        "blocks x widths",
        "params",
        "MACs",
        "layers",
        "search s",
        "before, %",
    ]
    columns += [text for each in (EPOCHS, LONG) for text in (f"{each} epochs, %", "seeds")]
    return markdown(columns, cells)

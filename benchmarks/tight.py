"""Searches under budgets that admit one student in a thousand, and how many they score.

The budget is the 0.1 % quantile of the parameters, and then of the MACs, of random students. A
search by evolution with a proxy that costs nothing (`params`) then asks for a full population. The
last row is the budget of an issue: 80K parameters and 12M MACs.
"""

from __future__ import annotations

import argparse
import time
from functools import partial

import numpy as np
import optuna

from diswot.cli import console
from diswot.costs.budget import Budget
from diswot.costs.counts import count_macs
from diswot.data.registry import create_dataset
from diswot.errors import UserError
from diswot.models.registry import create_teacher
from diswot.nas.api import search
from diswot.nas.evaluator import Scoring
from diswot.nas.proposal import Proposer
from diswot.spaces.registry import build_network, create_space

POPULATION = 20
QUANTILE = 0.001
SIZES = {"cifar_resnet": 32, "mobilenet": 64, "vit": 32}


def quantile(name: str, size: int, samples: int, *, macs: bool) -> float:
    """Return the cost that one random student in a thousand is below."""
    space, values = create_space(name, 10, size), []
    propose = Proposer(space)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=99))
    for _ in range(samples):
        trial = study.ask()
        params = propose(trial)
        model = partial(build_network, space, trial.params)
        values.append(count_macs(model(), (3, size, size)) if macs else params)
    return float(np.quantile(values, QUANTILE))


def row(name: str, size: int, budget: Budget, seeds: int) -> list[str]:
    """Return how many of some searches fill a population, and what they rejected and took."""
    space, batch = (
        create_space(name, 10, size),
        create_dataset("noise", num_classes=10, img_size=size),
    )
    scored, rejected, seconds = [], [], []
    for seed in range(seeds):
        start = time.perf_counter()
        try:
            found = search(
                create_teacher("resnet20", 10), space, batch.batch(4), n_trials=POPULATION,
                budget=budget, scoring=Scoring("params", seed=seed),
            )  # fmt: skip
            scored.append(found.scored)
            rejected.append(found.rejected)
        except UserError:
            scored.append(0)
        seconds.append(time.perf_counter() - start)
    full = sum(count == POPULATION for count in scored)
    limits = ", ".join(f"{value:,.0f} {limit}" for limit, value in budget.limits.items())
    return [
        name, limits, f"{full} of {seeds}", f"{min(scored)}", f"{np.median(rejected or [0]):.0f}",
        f"{np.median(seconds):.1f} s",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--spaces", nargs="*", default=list(SIZES))
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rows = []
    for name in options.spaces:
        size = SIZES[name]
        for macs in (False, True):
            limit = quantile(name, size, options.samples, macs=macs)
            budget = Budget(max_macs=limit) if macs else Budget(max_params=limit)
            rows.append(row(name, size, budget, options.seeds))
            print(rows[-1], flush=True)
    if "cifar_resnet" in options.spaces:
        rows.append(row("cifar_resnet", 32, Budget(80_000, 12_000_000), options.seeds))
    title = f"populations of {POPULATION} within budgets at the {QUANTILE:.1%} quantile"
    header = ["space", "budget", "full", "fewest scored", "rejected", "time"]
    console.table(title, header, rows, text=2)


if __name__ == "__main__":
    main()

"""The sub-networks of the shared teacher: their costs, and a sample of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import PartialFixedSampler, RandomSampler
from short_training import CLASSES, TEACHER
from torch import nn

from diswot.costs.counts import count_depth, count_macs, count_params
from diswot.spaces.registry import Params, build_network, create_space

TABLES = Path("docs/tables")
SHAPE, DEPTH, WIDTHS = (3, 32, 32), 5, (0.25, 0.5, 0.75, 1.0)
SAMPLE, SHARES = 24, (0.15, 0.75)  # sub-networks of the sample; their MACs over the teacher's
DISTILLER = "kd_standardised"

optuna.logging.set_verbosity(optuna.logging.WARNING)


@cache
def space() -> Callable[..., nn.Module]:
    return create_space(f"subnet:{TEACHER}", CLASSES)


def build(params: Params) -> nn.Module:
    return build_network(space(), params)


def uniform(depths: tuple[int, int, int], width: float) -> Params:
    """Return the parameters of a sub-network of one width, with the teacher's stem."""
    return {
        **{f"depth_{i}": depth for i, depth in enumerate(depths, 1)},
        **{f"width_{i}": width for i in (1, 2, 3)},
        "width_stem": 1.0,
    }


def widest_uniforms(macs: Callable[[Params], float | None]) -> Iterator[Params]:
    """Yield the sub-network of most MACs of each width, from the widest that fits.

    All stages have one width. Their depths differ by one at most, a later stage not shallower.

    Args:
        macs: Returns the MACs of a sub-network within the budget, and None for another.
    """
    every = product(range(1, DEPTH + 1), repeat=3)
    even = [depths for depths in every if depths[0] <= depths[1] <= depths[2] <= depths[0] + 1]
    for width in reversed(WIDTHS):
        found = [(macs(params), params) for params in (uniform(d, width) for d in even)]
        fitting = [(cost, params) for cost, params in found if cost is not None]
        if fitting:
            yield max(fitting, key=lambda each: each[0])[1]


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
    """Yield random sub-networks with the teacher's stem, without end."""
    sampler = PartialFixedSampler({"width_stem": 1.0}, RandomSampler(seed))
    study = optuna.create_study(sampler=sampler)
    while True:
        trial = study.ask()
        space()(trial)
        yield dict(trial.params)


def params_of(row: Mapping[str, str]) -> Params:
    """Return the architecture of a line."""
    return {name: type(FULL[name])(row[name]) for name in FULL}


@cache
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

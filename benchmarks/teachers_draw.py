"""The draw of the students of `teachers_table.py`: stratified by params, of few multiply-adds.

Writes docs/tables/teachers_students.jsonl. The students of the three spaces alternate there, so
that the first of them are of all spaces and sizes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from teachers_space import SPACES, STUDENTS

from diswot.costs.budget import Costs
from diswot.costs.counts import count_depth
from diswot.models.weightless import Weightless
from diswot.spaces.cells import NODES
from diswot.spaces.nasbench201 import OPERATIONS
from diswot.spaces.trials import FixedParamsTrial
from diswot.utils import files

COUNTS = {"s0": 6, "cifar_cnn": 10, "nasbench201": 8}
MAX_MACS = {"s0": 32e6, "cifar_cnn": 15e6, "nasbench201": 20e6}
DRAWN = 40  # students of a space within the limit, of which the strata are
MAX_DEPTH = 3  # blocks of a stage that a draw takes: deeper ones are rarely within the limit
# Choices of `cifar_cnn` that a draw takes: others are rarely within the limit, and depthwise
# convolutions on large maps take a processor several times as long as their multiply-adds suggest.
PLAIN = ("basic", "bottleneck")
SMALL: Mapping[str, tuple[Any, ...]] = {
    "stem": (8, 16), "block_1": PLAIN, "block_2": PLAIN,
    "width_1": (8, 16), "width_2": (16, 32), "width_3": (32, 64, 96),
}  # fmt: skip
SHAPE = (3, 32, 32)
CLASSES = 20

Row = dict[str, Any]


class RandomTrial(FixedParamsTrial):
    """A trial that draws each value; integers up to `MAX_DEPTH` where they may be as small."""

    def __init__(self, random: np.random.Generator, deepest: int) -> None:
        super().__init__({})
        self.random, self.deepest = random, deepest

    def choose(self, name: str, distribution: BaseDistribution) -> Any:
        """Draw the value of a parameter."""
        if isinstance(distribution, CategoricalDistribution):
            choices = SMALL.get(name, distribution.choices)
            return choices[self.random.integers(len(choices))]
        assert isinstance(distribution, IntDistribution)
        highest = min(distribution.high, max(distribution.low, self.deepest))
        values = range(distribution.low, highest + 1, distribution.step)
        return values[self.random.integers(len(values))]


def draw() -> list[Row]:
    """Return the students of all spaces, in the order of their trainings."""
    placed: list[tuple[float, Row]] = []
    for number, (space, count) in enumerate(COUNTS.items()):
        random = np.random.default_rng((24, number))
        rows = strata(sorted(candidates(space, random), key=lambda row: row["model_params"]), count)
        order = random.permutation(count)
        placed += [((place + 0.5) / count, rows[i]) for place, i in enumerate(order)]
    return [row for _, row in sorted(placed, key=lambda each: each[0])]


def candidates(space: str, random: np.random.Generator) -> list[Row]:
    """Draw different students of a space within its limit of multiply-adds."""
    found: dict[str, Row] = {}
    deepest = 5 if space == "s0" else MAX_DEPTH
    wanted = 10 if space == "s0" else DRAWN  # S0 has ten within the limit
    while len(found) < wanted:
        trial = RandomTrial(random, deepest)
        with Weightless():
            model = SPACES[space](trial, num_classes=CLASSES)
        params = dict(trial.params)
        key = json.dumps(params)
        if key in found or (space == "nasbench201" and not connected(params)):
            continue
        row = {"space": space, "params": params}
        costs = Costs(model, SHAPE)
        if costs.counts.macs <= MAX_MACS[space]:
            facts = {"model_params": costs.params, "macs": costs.counts.macs}
            found[key] = {"student": _name(row, costs.params), **row, **facts,
                          "depth": count_depth(model)}  # fmt: skip
    return list(found.values())


def connected(operations: Mapping[str, str]) -> bool:
    """Whether the output of a cell depends on its input."""
    reached = {0}
    for node in NODES:
        if any(operations[f"op_{node}_{s}"] != "none" for s in range(node) if s in reached):
            reached.add(node)
    return NODES[-1] in reached


def strata(rows: list[Row], count: int) -> list[Row]:
    """Return the middle row of each of `count` equal parts of sorted rows."""
    return [rows[int((place + 0.5) * len(rows) / count)] for place in range(count)]


def _name(row: Row, params: int) -> str:
    values = list(row["params"].values())
    if row["space"] == "s0":
        return "s0 " + "-".join(map(str, values))
    if row["space"] == "nasbench201":
        return "nasbench201 " + "".join(str(OPERATIONS.index(value)) for value in values)
    return f"cifar_cnn {params}"


def main() -> None:
    files.write_text(STUDENTS, "".join(f"{json.dumps(row)}\n" for row in draw()))


if __name__ == "__main__":
    main()

"""Random students near a budget, which a search has to be ahead of."""

from __future__ import annotations

from collections.abc import Callable

import optuna
from optuna.trial import TrialState
from torch import nn

from diswot.costs.budget import Budget, Costs
from diswot.nas.aging_evolution import AgingEvolutionSampler
from diswot.nas.proposal import Proposer
from diswot.spaces.registry import Params
from diswot.spaces.validation import Build

LEAST = 0.8  # share of one of the two costs that a random student needs
FIRST_SEED = 1000  # of the first random student; searches have seed 0


def random_student(
    space: Build,
    build: Callable[[Params], nn.Module],
    shape: tuple[int, int, int],
    limit: Budget,
    number: int,
) -> Params:
    """Draw students, then change the nearest to the budget, until one needs most of the budget.

    Drawing alone would take hours: few random students are within a small budget.
    """
    sampler = AgingEvolutionSampler(seed=FIRST_SEED + number)
    study = optuna.create_study(sampler=sampler, direction="maximize")
    propose = Proposer(space)
    while True:
        trial = study.ask()
        propose(trial)
        excess, margins = limit.check(Costs(build(trial.params), shape))
        fullest = max(margins.values())
        if excess is None and fullest >= LEAST - 1:
            return trial.params
        for cost, margin in margins.items():
            trial.set_constraint(cost, margin)
        if excess is None:
            study.tell(trial, fullest)
        else:
            study.tell(trial, state=TrialState.PRUNED)

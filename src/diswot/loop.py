"""The loop of a search: ask for an architecture, check its size, score it untrained, tell."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import optuna
import torch
from optuna.trial import TrialState
from torch import nn

from diswot.budget import COSTS, Budget, Costs, Shape
from diswot.errors import SearchFailed
from diswot.evolution import Key, key
from diswot.proxies import Scorer
from diswot.samplers import Listed
from diswot.spaces import Build, Params, construct, network

MAX_REJECTED = 500  # proposals in a row outside the budget before sampling gives up
LARGE = 10_000_000  # parameters, whose drawing takes longer than building without weights
MAX_FAILED = 20  # candidates that fail, none being scored, before sampling gives up

End = dict[str, Any]
Latency = Callable[[Params], float]


@dataclass(frozen=True)
class Progress:
    """Told at first and after each trial: how many of how many are done, the best score so far."""

    done: int
    total: int
    best: float | None


@dataclass
class Loop:
    """One process's part in a study.

    How a trial ended is kept, before Optuna is told, in its user attribute `end`, which has
    `scores` (by proxy, a number a repeat), or `reused` (the trial that scored the architecture),
    or `rejected` (the limit it breaks), or `failed` (the reason). With the first two go `score`
    and `costs` (those that are limited or an objective, by their names in `budget.COSTS`); with
    the first three `margins` (by how much limits are exceeded).

    Attributes:
        study: Asked and told.
        space: Builds the candidates.
        scorer: Scores them.
        proxy: A key of `PROXIES`.
        budget: Limits.
        image_shape: C, H, W; for the MACs.
        objectives: `score`, alone or with names of `budget.COSTS`: the study's values.
        latency: Measures the seconds of one image of an architecture.
        known: How each architecture ended first, with its `params` and `trial`.
        ends: Trials by how they ended.
        reasons: Failed trials by reason.
        best: The highest score.
        seconds: Of each candidate scored in this process.
        large: Whether a candidate was rejected that took long to build.
    """

    study: optuna.Study
    space: Build
    scorer: Scorer
    proxy: str
    budget: Budget
    image_shape: Shape
    objectives: tuple[str, ...] = ("score",)
    latency: Latency | None = None
    known: dict[Key, End] = field(default_factory=dict)
    ends: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    best: float | None = None
    seconds: list[float] = field(default_factory=list)
    large: bool = False

    def recall(self) -> None:
        """Take up what the study holds, and close the trials that a killed process left open."""
        for trial in self.study.get_trials(deepcopy=False):
            end = trial.user_attrs.get("end", {})
            if trial.state == TrialState.RUNNING:
                self._tell(trial.number, end)
            if end:
                self._remember(trial.params, trial.number, end)

    def visit(self, plan: list[Params], on_trial: Callable[[Progress], None]) -> None:
        """Look at every architecture of a list that is not known."""
        for done, params in enumerate(plan):
            on_trial(Progress(done, len(plan), self.best))
            if key(params) not in self.known:
                self.study.sampler = Listed(params)
                self._step()
        on_trial(Progress(len(plan), len(plan), self.best))

    def sample(self, trials: int, on_trial: Callable[[Progress], None]) -> None:
        """Look at what the sampler proposes, until `trials` were within the budget or none will."""
        rejected = 0
        while self.trials() < trials and not self._hopeless(rejected):
            on_trial(Progress(self.trials(), trials, self.best))
            rejected = rejected + 1 if "rejected" in self._step() else 0
        on_trial(Progress(self.trials(), trials, self.best))

    def trials(self) -> int:
        """Number of trials within the budget."""
        return self.ends.total() - self.ends["rejected"]

    def _hopeless(self, rejected: int) -> bool:
        failing = self.ends["failed"] >= MAX_FAILED and not self.ends["scores"]
        return rejected >= MAX_REJECTED or failing

    def _step(self) -> End:
        """One trial from proposal to result; how it ended."""
        start = time.perf_counter()
        trial = self.study.ask()
        end = self._try(trial)
        _constrain(trial, end.get("margins", {}))
        trial.set_user_attr("end", end)
        self._tell(trial.number, end)
        if "scores" in end:
            self.seconds.append(time.perf_counter() - start)
        self._remember(trial.params, trial.number, end)
        return end

    def _try(self, trial: optuna.Trial) -> End:
        """Build, check and score the proposed candidate, unless its result is known."""
        try:
            if self.large and (end := self._too_large(trial)) is not None:
                return end
            first = self.scorer.fresh(lambda: construct(self.space, trial))
            if (before := self.known.get(key(trial.params))) is not None:
                return _again(before)
            costs = self._costs(first, trial.params)
            excess, margins = self.budget.check(costs)
            if excess is not None:
                return {"rejected": asdict(excess), "margins": margins}
            scores = self.scorer.score(self._students(first, trial.params), [self.proxy])
            found = {name: COSTS[name].value(costs) for name in self._asked()}
        except SearchFailed:
            raise
        except Exception as error:  # whatever a user's network raises is this candidate's failure
            reason = next(iter(str(error).splitlines()), "")
            return {"failed": f"{type(error).__name__}: {reason}"}
        mean = statistics.fmean(scores[self.proxy])
        sizes = {"model_params": costs.params, "costs": found, "margins": margins}
        return {"score": mean, "scores": scores, **sizes}

    def _too_large(self, trial: optuna.Trial) -> End | None:
        """How a candidate of too many parameters ends, found before any weights are drawn."""
        limit = Budget(max_params=self.budget.max_params)
        with suppress(Exception), torch.device("meta"):  # what fails here is built as it is
            sketch = construct(self.space, trial)
            excess, margins = limit.check(Costs(sketch, self.image_shape))
            return None if excess is None else {"rejected": asdict(excess), "margins": margins}
        return None

    def _costs(self, model: nn.Module, params: Params) -> Costs:
        latency = None if self.latency is None else partial(self.latency, dict(params))
        return Costs(model, self.image_shape, latency)

    def _asked(self) -> list[str]:
        """The costs to find of each candidate that is scored."""
        return [name for name in COSTS if name in {*self.budget.limits, *self.objectives}]

    def _students(self, first: nn.Module, params: Params) -> Iterator[nn.Module]:
        yield first
        for repeat in range(1, len(self.scorer.batches)):
            yield self.scorer.fresh(lambda: network(self.space, params), repeat)

    def _tell(self, number: int, end: End) -> None:
        if "score" in end:
            values = {"score": end["score"], **end.get("costs", {})}
            self.study.tell(number, [values[name] for name in self.objectives])
        else:
            state = TrialState.PRUNED if "rejected" in end else TrialState.FAIL
            self.study.tell(number, state=state)

    def _remember(self, params: Params, number: int, end: End) -> None:
        kinds = ("reused", "scores", "rejected", "failed")
        self.ends[next(kind for kind in kinds if kind in end)] += 1
        self.known.setdefault(key(params), {**end, "trial": number, "params": dict(params)})
        excess = end.get("rejected", {})
        self.large |= excess.get("of") == COSTS["params"].unit and excess["value"] > LARGE
        if "failed" in end:
            self.reasons[end["failed"]] += 1
        if "score" in end:
            self.best = end["score"] if self.best is None else max(end["score"], self.best)


def _again(before: End) -> End:
    """The end of a trial whose architecture came to an end before."""
    if "score" in before:
        kept = ("score", "costs", "margins")
        return {
            "reused": before["trial"],
            **{name: value for name, value in before.items() if name in kept},
        }
    return {name: value for name, value in before.items() if name not in ("trial", "params")}


def _constrain(trial: optuna.Trial, margins: Mapping[str, float]) -> None:
    """Tell Optuna by how much limits are exceeded, as shares of them; zero or less is within.

    Optuna keeps a constraint under its name since version 5; its dashboard reads the list, under
    which versions before kept them.
    """
    for name, margin in margins.items():
        trial.set_constraint(name, margin)
    if margins:
        trial.storage.set_trial_system_attr(trial._trial_id, "constraints", list(margins.values()))

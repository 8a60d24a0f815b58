"""What becomes of one proposed candidate: build it, check its size, score it untrained.

The same wherever it is done: in the search's own process, in a worker process, on a cluster. What
it needs to know it asks its driver: a value for each choice, and whether to go on.
"""

from __future__ import annotations

import statistics
from collections.abc import Hashable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from optuna.distributions import BaseDistribution
from optuna.trial import BaseTrial, FixedTrial
from torch import nn

from diswot.costs.budget import COSTS, Budget, Costs
from diswot.costs.counts import Shape
from diswot.data.dataset import Batch
from diswot.errors import SearchFailed, UserError
from diswot.executors.packed import Ask
from diswot.executors.pool import Answer, Outcome
from diswot.nas.prefix import Chain
from diswot.nas.trial_result import End
from diswot.proxies.registry import get_proxy
from diswot.proxies.scorer import NotScored, Scorer, scorer
from diswot.spaces.registry import Params, build_network, construct, enumerate_params
from diswot.spaces.validation import Build
from diswot.utils import devices

Task = tuple[str, int]

LARGE = 10_000_000  # parameters, whose drawing takes longer than building without weights
RAISED, MEMORY, NOT_FINITE, TIMEOUT, KILLED = "error", "memory", "not finite", "timeout", "killed"


class Asked(FixedTrial):
    """A trial whose choices are made elsewhere.

    Args:
        ask: Given `suggest`, a name and a distribution, returns a value, or an exception to raise.
        number: Of the trial.
    """

    def __init__(self, ask: Ask, number: int) -> None:
        super().__init__({}, number)
        self._ask = ask

    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:
        if name not in self._params:
            value = self._ask(("suggest", name, distribution))
            if isinstance(value, Exception):
                raise value
            self._params[name] = value
        return super()._suggest(name, distribution)


@dataclass
class Examiner:
    """What stays the same for all candidates.

    Attributes:
        space: Builds them.
        scorer: Scores them.
        proxy: A key of `PROXIES`.
        budget: Limits.
        image_shape: C, H, W; for the MACs.
        objectives: `score`, alone or with names of `budget.COSTS`.
        large: Whether a candidate was rejected that took long to build.
        chains: What the candidate before left to the next, a repeat each.
    """

    space: Build
    scorer: Scorer
    proxy: str
    budget: Budget
    image_shape: Shape
    objectives: tuple[str, ...] = ("score",)
    large: bool = False
    chains: dict[int, Chain] = field(default_factory=dict)

    def examine(self, number: int, ask: Ask) -> End:
        """Build, check and score the candidate of a trial, unless its result is known.

        Args:
            number: Of the trial.
            ask: As of `Asked`; and, given `judge` and the parameters, returns how the candidate
                ended before, or None to go on; given `latency` and them, the measured seconds.
        """
        trial = Asked(ask, number)
        try:
            if self.large and (end := self._too_large(trial)) is not None:
                return end
            first = self.scorer.fresh(lambda: construct(self.space, trial))
            params = dict(trial.params)
            before: End | None = ask(("judge", params))
            if before is not None:
                return before
            costs = Costs(first, self.image_shape, lambda: float(ask(("latency", params))))
            excess, margins = self.budget.check(costs)
            if excess is not None:
                self.large |= excess.of == COSTS["params"].unit and excess.value > LARGE
                return {"rejected": asdict(excess), "margins": margins}
            scores = self.scorer.score(self._students(first, params), [self.proxy])
            found = {name: COSTS[name].value(costs) for name in self._wanted()}
        except SearchFailed:
            raise
        except (Exception, SystemExit) as error:  # whatever a user's network raises is its failure
            return failed(error)
        mean = statistics.fmean(scores[self.proxy])
        sizes = {"model_params": costs.params, "costs": found, "margins": margins}
        return {"score": mean, "scores": scores, **sizes}

    def _too_large(self, trial: BaseTrial) -> End | None:
        """How a candidate of too many parameters ends, found before any weights are drawn."""
        limit = Budget(max_params=self.budget.max_params)
        with suppress(Exception), torch.device("meta"):  # what fails here is built as it is
            sketch = construct(self.space, trial)
            excess, margins = limit.check(Costs(sketch, self.image_shape))
            return None if excess is None else {"rejected": asdict(excess), "margins": margins}
        return None

    def _wanted(self) -> list[str]:
        """The costs to find of each candidate that is scored."""
        return [name for name in COSTS if name in {*self.budget.limits, *self.objectives}]

    def _students(self, first: nn.Module, params: Params) -> Iterator[nn.Module]:
        for repeat in range(len(self.scorer.batches)):
            build = partial(build_network, self.space, params)
            student = self.scorer.fresh(build, repeat) if repeat else first
            chain = self.chains.setdefault(repeat, Chain())
            yield chain.through(student) if self._shares else student

    @property
    def _shares(self) -> bool:
        """Whether the score looks at no more than one forward pass shows from outside."""
        row = get_proxy(self.proxy)
        return row.cost == "forward" and row.recorder is None


def work(examiner: Examiner, task: Task, ask: Ask) -> Any:
    """A worker's task: `examine` the candidate of a trial, or `enumerate` the space."""
    what, number = task
    if what == "enumerate":
        with torch.random.fork_rng(devices=[]):
            return enumerate_params(examiner.space, number)
    return examiner.examine(number, ask)


@dataclass(frozen=True)
class Setup:
    """What an `Examiner` is made of, in any process; see `search.search`."""

    teacher: nn.Module
    space: Build
    batches: tuple[Batch, ...]
    proxy: str
    budget: Budget
    objectives: tuple[str, ...]
    init: str
    seed: int
    trained_teacher: bool
    device: str | None = None

    def examiner(self) -> Examiner:
        """Look at the teacher."""
        _, channels, height, width = self.batches[0].images.shape
        fixed = scorer(
            self.teacher,
            self.batches,
            init=self.init,
            seed=self.seed,
            trained_teacher=self.trained_teacher,
            device=None if self.device is None else devices.get_device(self.device),
        )
        shape = channels, height, width
        return Examiner(self.space, fixed, self.proxy, self.budget, shape, self.objectives)


@dataclass
class Alone:
    """Does tasks in this process, one at a time, as a `workers.Pool` does them in others."""

    examiner: Examiner
    _task: tuple[Hashable, Task] | None = None

    @property
    def room(self) -> int:
        """One, if there is no task."""
        return int(self._task is None)

    def put(self, key: Hashable, content: Task, *, patience: int = 1) -> None:
        """Take on a task."""
        self._task = key, content

    def wait(self, answer: Answer, seconds: float | None = None) -> list[Outcome]:
        """Do it."""
        if self._task is None:
            return []
        (key, content), self._task = self._task, None
        return [Outcome(key, work(self.examiner, content, partial(answer, key)))]


def failed(error: BaseException) -> End:
    """How a candidate ended that raised."""
    reason = next(iter(str(error).splitlines()), "")
    ours = isinstance(error, UserError | NotScored)
    told = reason if ours else f"{type(error).__name__}: {reason}"
    return {"failed": told, "kind": _kind(error)}


def _kind(error: BaseException) -> str:
    if isinstance(error, NotScored):
        return NOT_FINITE
    memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return MEMORY if memory or "can't allocate memory" in str(error) else RAISED

"""Evaluation of one candidate: build it, check its costs, score it untrained.

A pure function of the parameters: the same in this process, in a worker process and on a Ray actor.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import nn

from diswot.costs.budget import COSTS, Budget, Costs
from diswot.costs.counts import Shape
from diswot.data.dataset import Batch
from diswot.errors import SearchFailed, UserError
from diswot.nas.trial_result import MEMORY, NOT_FINITE, RAISED, TrialResult
from diswot.proxies.registry import Proxy, ProxyLike, get_proxies
from diswot.proxies.scorer import NotScored, Scorer, scorer
from diswot.spaces.registry import Params, build_network
from diswot.spaces.validation import Build
from diswot.utils.devices import get_device
from diswot.utils.user_code import name_of

Task = tuple[Params, float | None]  # parameters, and the measured latency in seconds


@dataclass(frozen=True)
class Scoring:
    """How candidates are scored.

    Attributes:
        proxy: A key of `PROXIES`; `file.py:function` or `package.module:function`; or a function of
            a `Candidate`, or of the observations of teacher and student.
        init: Initialisation of the weights, a key of `INITS`; that of the proxy if None.
        seed: Seed of the sampler and of all weights.
        trained_teacher: Whether the teacher keeps its weights; else fresh ones are drawn. True in
            any case if `init` is `inherited`.
        num_classes: Number of outputs that every student must have. None, the default: the number
            of classes of a data set that is given as such; else any that the labels fit.
    """

    proxy: ProxyLike = "default"
    init: str | None = None
    seed: int = 0
    trained_teacher: bool = False
    num_classes: int | None = None


@dataclass(frozen=True)
class EvaluatorSettings:
    """All that an `Evaluator` is made of, for making it in any process.

    There is one batch a repeat. The scoring names an initialisation. Candidates are scored on the
    named device, or else on that of the batches.
    """

    teacher: nn.Module | None
    space: Build
    batches: tuple[Batch, ...]
    scoring: Scoring
    budget: Budget
    objectives: tuple[str, ...]
    device: str | None = None

    @property
    def image_shape(self) -> Shape:
        """Return C, H, W of the images."""
        _, channels, height, width = self.batches[0].images.shape
        return channels, height, width

    def evaluator(self) -> Evaluator:
        """Observe the teacher, if the proxy needs one, and return what evaluates candidates."""
        how = self.scoring
        assert how.init is not None
        fixed = scorer(
            self.teacher,
            self.batches,
            [how.proxy],
            init=how.init,
            seed=how.seed,
            trained_teacher=how.trained_teacher,
            device=None if self.device is None else get_device(self.device),
            num_classes=how.num_classes,
        )
        limited = {*self.budget.limits, *self.objectives}
        costs = tuple(name for name in COSTS if name in limited)
        return Evaluator(self.space, fixed, how.proxy, self.budget, self.image_shape, costs)

    def make(self) -> Callable[[Task], TrialResult]:
        """Return the function that does an executor's tasks."""
        evaluator = self.evaluator()
        return lambda task: evaluator.evaluate(*task)


@dataclass(frozen=True)
class Evaluator:
    """What stays the same for all candidates of a search, of which `costs` are reported."""

    space: Build
    scorer: Scorer
    proxy: ProxyLike
    budget: Budget
    image_shape: Shape
    costs: tuple[str, ...] = ()

    @cached_property
    def row(self) -> dict[str, Proxy]:
        """The proxy by its name, looked up once: a user may edit a file during the search."""
        return get_proxies([self.proxy])

    def evaluate(self, params: Params, latency: float | None = None) -> TrialResult:
        """Build, check and score one candidate; a latency that counts is measured already."""
        try:
            first = self.scorer.fresh(partial(build_network, self.space, params))
            measured = None if latency is None else partial(float, latency)
            costs = Costs(first, self.image_shape, measured)
            excess, margins = self.budget.check(costs)
            if excess is not None:
                return TrialResult(rejected=excess, margins=margins)
            scores = self.scorer.score(self._students(first, params), self.row)
            reported = {name: COSTS[name].value(costs) for name in self.costs}
        except SearchFailed:
            raise
        except (Exception, SystemExit) as error:  # an error of a user's network is its failure
            return failure(error)
        mean = statistics.fmean(scores[name_of(self.proxy)])
        return TrialResult(mean, scores, costs.params, reported, margins)

    def _students(self, first: nn.Module, params: Params) -> Iterator[nn.Module]:
        yield first
        for repeat in range(1, len(self.scorer.batches)):
            yield self.scorer.fresh(partial(build_network, self.space, params), repeat)


def failure(error: BaseException) -> TrialResult:
    """Return how a candidate ended that raised an error."""
    reason = next(iter(str(error).splitlines()), "")
    ours = isinstance(error, UserError | NotScored)
    return TrialResult(
        failed=reason if ours else f"{type(error).__name__}: {reason}", kind=_kind(error)
    )


def _kind(error: BaseException) -> str:
    if isinstance(error, NotScored):
        return NOT_FINITE
    memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return MEMORY if memory or "can't allocate memory" in str(error) else RAISED

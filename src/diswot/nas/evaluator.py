"""Evaluation of one candidate: build it, check its costs, score it untrained.

A pure function of the parameters: the same in this process, in a worker process and on a Ray actor.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain

from torch import nn

from diswot.costs.budget import COSTS, Budget, Costs
from diswot.costs.counts import Shape
from diswot.data.dataset import Batch
from diswot.errors import UserError, out_of_memory
from diswot.nas.trial_result import MEMORY, NOT_FINITE, RAISED, TrialResult
from diswot.proxies.registry import Proxy, ProxyLike, get_proxies
from diswot.proxies.scorer import NotScored, Scorer, scorer
from diswot.spaces.registry import Params, build_network
from diswot.spaces.validation import Build
from diswot.utils.devices import get_device
from diswot.utils.user_code import name_of


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
class Evaluator:
    """Evaluation of the candidates of a search, in any process that receives it.

    Attributes:
        teacher: Observed once in each process, if the proxy needs a teacher.
        space: Builds the candidates.
        batches: One batch a repeat.
        scoring: How candidates are scored; it names an initialisation.
        budget: Limits; candidates outside are not scored.
        objectives: `score`, alone or with names of `COSTS`.
        device: Device to score on; that of the batches if None.
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
        """C, H, W of the images."""
        _, channels, height, width = self.batches[0].images.shape
        return channels, height, width

    @property
    def costs(self) -> tuple[str, ...]:
        """Names of the costs that are reported: those that are limited or an objective."""
        return tuple(n for n in COSTS if n in {*self.budget.limits, *self.objectives})

    @cached_property
    def scorer(self) -> Scorer:
        """What scores networks, with the observations of the teacher."""
        how = self.scoring
        assert how.init is not None
        return scorer(
            self.teacher,
            self.batches,
            [how.proxy],
            init=how.init,
            seed=how.seed,
            trained_teacher=how.trained_teacher,
            device=None if self.device is None else get_device(self.device),
            num_classes=how.num_classes,
        )

    @cached_property
    def row(self) -> dict[str, Proxy]:
        """The proxy by its name, looked up once: a user may edit a file during the search."""
        return get_proxies([self.scoring.proxy])

    def make(self) -> Callable[[tuple[Params, float | None]], TrialResult]:
        """Observe the teacher; return a function of parameters and a latency in seconds."""
        _ = self.scorer
        return lambda task: self.evaluate(*task)

    def evaluate(self, params: Params, latency: float | None = None) -> TrialResult:
        """Build, check and score one candidate; a latency that counts is measured already."""
        try:
            students = self.scorer.students(partial(build_network, self.space, params))
            first = next(students)
            measured = None if latency is None else partial(float, latency)
            costs = Costs(first, self.image_shape, measured)
            excess, margins = self.budget.check(costs)
            if excess is not None:
                return TrialResult(rejected=excess, margins=margins)
            scores = self.scorer.score(chain([first], students), self.row)
            reported = {name: COSTS[name].value(costs) for name in self.costs}
        except (Exception, SystemExit) as error:  # an error of a user's network is its failure
            return failure(error)
        mean = statistics.fmean(scores[name_of(self.scoring.proxy)])
        return TrialResult(mean, scores, costs.params, reported, margins)


def failure(error: BaseException) -> TrialResult:
    """Return how a candidate ended that raised an error."""
    reason = next(iter(str(error).splitlines()), "")
    ours = isinstance(error, UserError | NotScored)
    return TrialResult(
        failed=reason if ours else f"{type(error).__name__}: {reason}", kind=_kind(error)
    )


def _kind(error: BaseException) -> str:
    """Return the kind of a failure by its first cause."""
    if error.__cause__ is not None:
        return _kind(error.__cause__)
    if isinstance(error, NotScored):
        return NOT_FINITE
    return MEMORY if out_of_memory(error) else RAISED

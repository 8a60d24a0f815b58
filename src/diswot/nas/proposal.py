"""The parameters of the next candidate, found by running its space without weights."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field

from optuna.trial import BaseTrial

from diswot.costs.counts import count_params
from diswot.models.weightless import Weightless
from diswot.spaces.registry import Params, construct
from diswot.spaces.validation import Build

_log = logging.getLogger("diswot")


@dataclass(frozen=True)
class Proposal:
    """A candidate whose parameters are all decided, and the number of its weights."""

    params: Params
    model_params: int


@dataclass
class Proposer:
    """Runs a space on the meta device, which decides all parameters and allocates no weights.

    A space that cannot be built there is built with weights; one line in the log says so and what
    the first network took.
    """

    space: Build
    _meta: bool = field(default=True, init=False)

    def __call__(self, trial: BaseTrial) -> Proposal:
        """Decide the parameters of a trial.

        Raises:
            Exception: The error of the space, which fails this candidate.
        """
        if self._meta:
            try:
                with Weightless():
                    return self._run(trial)
            except (Exception, SystemExit) as error:
                reason = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        start = time.perf_counter()
        proposal = self._run(trial)
        if self._meta:
            self._meta = False
            _log.warning(
                "the space cannot be built on the meta device (%s): each proposal draws the "
                "weights of its network, the first in %.0f ms",
                reason,
                1e3 * (time.perf_counter() - start),
            )
        return proposal

    def _run(self, trial: BaseTrial) -> Proposal:
        model = construct(self.space, trial)
        return Proposal(dict(trial.params), count_params(model))

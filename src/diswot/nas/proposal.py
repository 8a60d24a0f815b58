"""The parameters of the next candidate, found by running its space without weights."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field

from optuna import Study, Trial
from optuna.exceptions import StorageInternalError
from optuna.trial import BaseTrial

from diswot.costs.counts import count_params
from diswot.errors import UserError, one_line
from diswot.models.weightless import Weightless
from diswot.spaces.registry import construct
from diswot.spaces.validation import Build
from diswot.storage.journal import NotWritten

_log = logging.getLogger("diswot")


def ask(study: Study) -> Trial:
    """Open a trial, and let the sampler draw the values that it draws together.

    They are drawn here, so that an error of the sampler is no failure of a candidate.

    Raises:
        UserError: The sampler fails.
    """
    try:
        trial = study.ask()
        trial.relative_params  # noqa: B018
    except (NotWritten, StorageInternalError):
        raise  # the storage's own error
    except Exception as error:  # a user's sampler may raise anything
        raise UserError(f"the sampler fails: {one_line(error)}") from error
    return trial


@dataclass
class Proposer:
    """Run of a space on the meta device, which decides all parameters and allocates no weights.

    A space that cannot be built there is built with weights; one line in the log says so and what
    the first network took.
    """

    space: Build
    _meta: bool = field(default=True, init=False)

    def __call__(self, trial: BaseTrial) -> int:
        """Decide all parameters of a trial, which keeps them.

        Returns:
            Number of the network's weights.

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
        weights = self._run(trial)
        if self._meta:
            self._meta = False
            _log.warning(
                "the space cannot be built on the meta device (%s): each proposal draws the "
                "weights of its network, the first in %.0f ms",
                reason,
                1e3 * (time.perf_counter() - start),
            )
        return weights

    def _run(self, trial: BaseTrial) -> int:
        return count_params(construct(self.space, trial))

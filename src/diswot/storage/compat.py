"""Private names of Optuna on which diswot depends, each with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optuna import Study, Trial
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FixedTrial, FrozenTrial, TrialState


def storage_of(study: Study) -> BaseStorage:
    """Return the storage of a study. A study has no public attribute for it."""
    return study._storage


def close(storage: BaseStorage) -> None:
    """Close the connections of a storage.

    Only the storage of a database has an engine; Optuna wraps that storage in a cache, whose
    `_backend` it is.
    """
    storage.remove_session()
    backend = getattr(storage, "_backend", storage)
    if isinstance(backend, RDBStorage):
        backend.engine.dispose()


def study_id(study: Study) -> int:
    """Return the number by which a storage knows a study. Only the name is public."""
    return study._study_id


def trial_id(trial: Trial | FrozenTrial) -> int:
    """Return the number by which a storage knows a trial. Only the one in the study is public."""
    return trial._trial_id


def tell(
    study: Study, number: int, values: Sequence[float] | None, state: TrialState | None
) -> bool:
    """Tell a study how a trial ended; return whether its sampler has no others to propose.

    Optuna's grid sampler then calls `Study.stop`, which raises a plain `RuntimeError` outside of
    `Study.optimize`. The end of the trial is stored all the same.
    """
    try:
        study.tell(number, values, state, skip_if_finished=True)
    except RuntimeError as error:
        if "Study.stop" not in str(error):
            raise
        return True
    return False


def set_constraints(trial: Trial, margins: Sequence[float]) -> None:
    """Store constraint values in the list that Optuna's dashboard and versions before 5 read.

    `Trial.set_constraint` stores each value under its own name only.
    """
    trial.storage.set_trial_system_attr(trial_id(trial), "constraints", list(margins))


def contains(distribution: BaseDistribution, value: Any) -> bool:
    """Say whether a distribution allows a value. No public method of distributions does."""
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except (ValueError, TypeError):
        return False


class ChoosingTrial(FixedTrial):
    """A trial without a study whose values a subclass chooses.

    All `suggest_*` methods of Optuna's `FixedTrial` call its private `_suggest`. A trial of our own
    would repeat a dozen public methods.
    """

    def __init__(self) -> None:
        super().__init__({})

    def choose(self, name: str, distribution: BaseDistribution) -> Any:
        """Return the value of a parameter."""
        raise NotImplementedError

    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:
        self._params[name] = self.choose(name, distribution)
        return super()._suggest(name, distribution)

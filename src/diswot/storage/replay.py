"""The lines of a journal made fewer, for a long study to be read again in a fraction of the time.

Optuna writes a line for each choice and each attribute of a trial, and when it reads them copies
the trial for each. What a line of creation may say at once, it says here: all that became of the
trial. What Optuna reads from either is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from optuna.storages.journal._storage import JournalOperation
from optuna.trial import TrialState

Log = dict[str, Any]

_FINISHED = {state for state in TrialState if state.is_finished()}
_PARTS = ("distributions", "params", "user_attrs", "system_attrs", "intermediate_values")


class Unusual(Exception):
    """Lines that are better left to Optuna, such as those of a choice that changed."""


def merged(logs: Iterable[Log]) -> list[Log]:
    """The logs of a journal from its beginning, with one a trial.

    Raises:
        Unusual: They are to be read as they are.
    """
    try:
        return _Merger().merge(logs)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise Unusual from error


class _Merger:
    def __init__(self) -> None:
        self.studies: list[str] = []
        self.trials: list[Log] = []
        self.first: dict[tuple[int, str], tuple[str, str]] = {}

    def merge(self, logs: Iterable[Log]) -> list[Log]:
        return [new for log in logs if (new := self._kept(log)) is not None]

    def _kept(self, log: Log) -> Log | None:
        """The log, one that stands for several, or none if another does for this one."""
        operation = log["op_code"]
        if (update := _UPDATES.get(operation)) is not None:
            self._update(update, self.trials[log["trial_id"]], log)
            return None
        if operation == JournalOperation.CREATE_TRIAL:
            return self._created(log)
        if operation == JournalOperation.CREATE_STUDY:
            return self._begun(log)
        if operation == JournalOperation.DELETE_STUDY:
            raise Unusual
        return log

    def _begun(self, log: Log) -> Log | None:
        """Whoever goes on with a study asks for it anew, which does nothing."""
        if log["study_name"] in self.studies:
            return None
        self.studies.append(log["study_name"])
        return log

    def _created(self, log: Log) -> Log:
        if not 0 <= log["study_id"] < len(self.studies):
            raise Unusual
        begun = {**log, **{part: dict(log.get(part, {})) for part in _PARTS}}
        begun.setdefault("state", TrialState.RUNNING)
        for name, distribution in begun["distributions"].items():
            self._shared(begun, name, distribution)
        self.trials.append(begun)
        return begun

    def _shared(self, trial: Log, name: str, distribution: str) -> tuple[str, str]:
        """The same two texts, as one object each for all trials of a study."""
        given = name, distribution
        first = self.first.setdefault((trial["study_id"], name), given)
        if first != given:
            raise Unusual
        return first

    def _update(self, update: Callable[[Log, Log], None], trial: Log, log: Log) -> None:
        if trial["state"] in _FINISHED:
            return
        if "param_name" in log:
            name, distribution = self._shared(trial, log["param_name"], log["distribution"])
            log = {**log, "param_name": name, "distribution": distribution}
        update(trial, log)


def _param(trial: Log, log: Log) -> None:
    trial["params"][log["param_name"]] = log["param_value_internal"]
    trial["distributions"][log["param_name"]] = log["distribution"]


def _state(trial: Log, log: Log) -> None:
    state = TrialState(log["state"])
    if state == TrialState.RUNNING:
        if trial["state"] == state:
            return
        trial["datetime_start"] = log["datetime_start"]
    if state in _FINISHED:
        trial["datetime_complete"] = log["datetime_complete"]
    if log["values"] is not None:
        trial["value"], trial["values"] = None, log["values"]
    trial["state"] = log["state"]


_UPDATES: dict[int, Callable[[Log, Log], None]] = {
    JournalOperation.SET_TRIAL_PARAM: _param,
    JournalOperation.SET_TRIAL_STATE_VALUES: _state,
    JournalOperation.SET_TRIAL_USER_ATTR: lambda trial, log: trial["user_attrs"].update(
        log["user_attr"]
    ),
    JournalOperation.SET_TRIAL_SYSTEM_ATTR: lambda trial, log: trial["system_attrs"].update(
        log["system_attr"]
    ),
    JournalOperation.SET_TRIAL_INTERMEDIATE_VALUE: lambda trial, log: trial[
        "intermediate_values"
    ].update({str(log["step"]): log["intermediate_value"]}),
}

"""The trials of a search, read from its study or its result."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial
from sqlalchemy.engine import make_url

from diswot.errors import UserError, first_line
from diswot.nas.trial_result import TrialResult
from diswot.proxies.scorer import standard_error
from diswot.runs.records import TrialRecord
from diswot.storage.study import open_storage
from diswot.utils.agreement import require_same
from diswot.utils.untrusted import Facts, mapping, number, numbers


def load_study(where: str | Path, name: str | None) -> optuna.Study:
    """Open a study for reading.

    Args:
        where: Path of a journal, or URL of a storage.
        name: Name of the study. Default: `diswot`, or else the only study there.

    Raises:
        UserError: The study is missing, or cannot be read.
    """
    try:
        place: Any = str(where)
        if isinstance(where, Path):
            if not where.is_file():
                raise UserError(f"the trials of the search are not in {where.parent}")
            place = JournalStorage(JournalFileBackend(str(where)))
        else:
            _check_database(place)
            place = open_storage(place)
        names = [summary.study_name for summary in optuna.get_all_study_summaries(place)]
        if name is None:
            name = "diswot" if "diswot" in names else next(iter(names * (len(names) == 1)), None)
        if name not in names:
            raise UserError(f"no study {name or ''!r} there; known: {', '.join(names) or 'none'}")
        return optuna.load_study(study_name=name, storage=place)
    except UserError:
        raise
    except Exception as error:  # a damaged journal or a missing database raises anything
        raise UserError(f"the trials of the search cannot be read: {first_line(error)}") from error


def check_same(study: optuna.Study, folder: Path, config: Facts, found: Facts) -> None:
    """Refuse a study of another search than the one in a run folder.

    Raises:
        UserError: A configured value differs, or the best student is not in the study.
    """
    held = mapping(study.user_attrs.get("config"))
    other = f"the study {study.study_name!r} is not of the search in {folder}"
    shared = config.keys() & (held or config).keys()  # a search from Python stores less there
    here = {name: config[name] for name in shared}
    require_same({name: held.get(name) for name in shared}, here, f"{other}: it")
    best = mapping(found.get("best"))
    trial, params = number(best.get("trial")), best.get("params")
    trials = study.get_trials(deepcopy=False)
    if best and not any(each.number == trial and each.params == params for each in trials):
        raise UserError(f"{other}: its trial {trial} is not the student found there")


def _check_database(url: str) -> None:
    """Refuse a URL without its password, and an SQLite file that opening would create."""
    if "***" in url:
        raise UserError("the trials are in a database; name it with --storage to show them")
    parts = make_url(url)
    if parts.get_backend_name() == "sqlite" and not Path(parts.database or "").is_file():
        raise UserError(f"the trials of the search are not in {parts.database}")


def trial_record(trial: FrozenTrial) -> TrialRecord:
    """Return a trial of a study as a record; without a result of a search it counts as running."""
    result = None
    with suppress(UserError):
        result = TrialResult.from_trial(trial)
    if result is None:
        return TrialRecord(trial.number, dict(trial.params), "running")
    costs, over = numbers(result.costs), result.rejected
    repeats = next(iter(result.scores.values())) if len(result.scores) == 1 else []
    return TrialRecord(
        trial=trial.number,
        params=dict(trial.params),
        outcome=result.outcome,
        score=number(result.score),
        standard_error=standard_error([value for value in repeats if number(value) is not None]),
        model_params=number(result.model_params),
        macs=costs.get("macs"),
        note=str(over) if over else result.failed,
        extra={name: value for name, value in costs.items() if name not in ("params", "macs")},
    )

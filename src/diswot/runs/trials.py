"""The trials of a search, as its study or its result has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial
from sqlalchemy.engine import make_url

from diswot.errors import UserError
from diswot.nas.result import elapsed
from diswot.nas.trial_result import ATTRIBUTE
from diswot.proxies.scorer import standard_error
from diswot.runs.records import Candidate
from diswot.storage.study import open_storage
from diswot.utils.untrusted import Facts, mapping, number, numbers


def load_study(where: str | Path, name: str | None) -> optuna.Study:
    """Open a study to read it: of a journal's path or a storage's URL.

    Raises:
        UserError: It is not there, or cannot be read.
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
    except Exception as error:  # a damaged journal or a missing database raises whatever comes
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"the trials of the search cannot be read: {reason}") from error


def check_same(study: optuna.Study, folder: Path, told: Facts, found: Facts) -> None:
    """Refuse a study of another search than a run folder's.

    Args:
        study: Of whoever.
        folder: Of the run.
        told: How its search was told to go, as `run.json` has it.
        found: Its result, as far as there is one.

    Raises:
        UserError: What both say of the search differs, or the best student is none of the study's.
    """
    kept = mapping(study.user_attrs.get("config"))
    other = f"the study {study.study_name!r} is not of the search in {folder}"
    for name in sorted(told):
        if kept.get(name) != told[name]:
            raise UserError(f"{other}: it has {name} = {kept.get(name)!r}, not {told[name]!r}")
    best = mapping(found.get("best"))
    trial, params = number(best.get("trial")), best.get("params")
    trials = study.get_trials(deepcopy=False)
    if best and not any(each.number == trial and each.params == params for each in trials):
        raise UserError(f"{other}: its trial {trial} is not the student found there")


def _check_database(url: str) -> None:
    """Refuse a database without its password, and a file that opening would make."""
    if "***" in url:
        raise UserError("the trials are in a database; name it with --storage to show them")
    parts = make_url(url)
    if parts.get_backend_name() == "sqlite" and not Path(parts.database or "").is_file():
        raise UserError(f"the trials of the search are not in {parts.database}")


def candidate(trial: FrozenTrial) -> Candidate:
    """A trial in the terms of the search."""
    end = mapping(trial.user_attrs.get(ATTRIBUTE))
    kind = next(
        (kind for kind in ("reused", "scores", "rejected", "failed") if kind in end), "running"
    )
    costs = numbers(end.get("costs"))
    over = mapping(end.get("rejected"))
    note = f"{over.get('value')} {over.get('of')} > {over.get('limit')}" if over else ""
    return Candidate(
        trial=trial.number,
        params=dict(trial.params),
        end=kind,
        score=number(end.get("score")),
        standard_error=_standard_error(end),
        model_params=number(end.get("model_params")),
        macs=costs.get("macs"),
        note=note or str(end.get("failed", "")),
        extra={name: value for name, value in costs.items() if name not in ("params", "macs")},
    )


def _standard_error(end: Facts) -> float | None:
    """Of the mean over the repeats of the one score of a trial."""
    columns = [c for c in mapping(end.get("scores")).values() if isinstance(c, list)]
    values = [v for v in map(number, columns[0]) if v is not None] if len(columns) == 1 else []
    return standard_error(values)


def top(found: Facts) -> tuple[Candidate, ...]:
    """The best as `found.json` has them, where the trials are out of reach."""
    rows = found.get("top")
    known = ("params", "trial", "score", "standard_error", "model_params", "macs")
    return tuple(
        Candidate(
            trial=int(number(row.get("trial")) or 0),
            params=mapping(row.get("params")),
            end="scores",
            **{name: number(row.get(name)) for name in known[2:]},  # type: ignore[arg-type]
            extra={name: v for name, v in numbers(row).items() if name in ("latency", "memory")},
        )
        for row in (rows if isinstance(rows, list) else [])
        if isinstance(row, dict)
    )


def spent(trials: list[FrozenTrial], found: Facts) -> float | None:
    """Return the seconds of a search over all runs; None if that is not known.

    Args:
        trials: Trials of the study; empty where it is out of reach.
        found: Result as in `found.json`, which may be older than the trials.
    """
    return elapsed(trials) if trials else number(found.get("seconds"))

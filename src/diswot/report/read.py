"""What a run folder holds: a search, trainings, rank studies; as plain values.

Nothing is written and nothing is unpickled. What is damaged is left out, with a note that says so.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial
from sqlalchemy.engine import make_url

from diswot import files
from diswot.checkpoint import HISTORY
from diswot.ends import END, KINDS
from diswot.errors import UserError
from diswot.layout import FOUND, RANKED, RUN, SCORES, TRAINED
from diswot.proxies import standard_error
from diswot.storage import JOURNAL, open_storage

DEPTH = 3  # folders below the run in which trainings and rank studies are looked for

Facts = dict[str, Any]


@dataclass(frozen=True)
class Candidate:
    """A trial of a search.

    Attributes:
        trial: Its number.
        params: Its choices.
        end: `scores`, `reused`, `rejected`, `failed` or `running`.
        score: Higher is better; None where there is none.
        standard_error: Over the repeats.
        model_params: Trainable parameters.
        macs: Multiply-adds of one image.
        note: Why it was rejected or failed.
        extra: Other costs that the search found: `latency` in seconds, `memory` in bytes.
    """

    trial: int
    params: Facts
    end: str
    score: float | None = None
    standard_error: float | None = None
    model_params: float | None = None
    macs: float | None = None
    note: str = ""
    extra: Mapping[str, float] = field(default_factory=dict)

    def cost(self, name: str) -> float | None:
        """A cost by its name among budgets: params, macs, latency or memory."""
        own = {"params": self.model_params, "macs": self.macs}
        return own[name] if name in own else self.extra.get(name)


@dataclass(frozen=True)
class Search:
    """A search, finished or not.

    Attributes:
        config: How it was told to go.
        found: Its result, as in `found.json`; empty while it is unfinished.
        candidates: By trial; empty where the trials cannot be read.
        study: The trials as Optuna knows them.
        seconds: From the start of the first trial to the end of the last; None if not known.
    """

    config: Facts
    found: Facts
    candidates: tuple[Candidate, ...]
    study: optuna.Study | None
    seconds: float | None

    def resumed(self) -> bool:
        """Whether the time of its result is of the last run alone: its trials took longer."""
        told = number(self.found.get("seconds"))
        return told is not None and self.seconds is not None and told < self.seconds

    def verified(self) -> list[Facts]:
        """Students that were distilled briefly: the `student`, its `accuracy` and `epochs`."""
        rows = _mapping(self.found.get("verified")).get("trained")
        there = [row for row in (rows if isinstance(rows, list) else []) if isinstance(row, dict)]
        return [row for row in there if isinstance(row.get("student"), dict)]

    def costs(self) -> list[str]:
        """What the score is weighed against: params, and the costs that were objectives."""
        objectives = self.config.get("objectives")
        named = map(str, objectives) if isinstance(objectives, list) else ()
        return list(dict.fromkeys(["params", *(name for name in named if name != "score")]))

    def scored(self) -> list[Candidate]:
        """Different candidates with a score, the best first."""
        there = [c for c in self.candidates if c.end == "scores" and c.score is not None]
        return sorted(there, key=lambda c: (-(c.score or 0.0), c.trial))


@dataclass(frozen=True)
class Training:
    """A training: its folder's name, a row an epoch, and its result where it is finished."""

    name: str
    history: tuple[Mapping[str, float], ...]
    result: Facts


@dataclass(frozen=True)
class Study:
    """A rank study: its folder's name, `rank.json`, and the columns of its scores."""

    name: str
    result: Facts
    accuracies: Mapping[str, list[float | None]]
    scores: Mapping[str, list[float | None]]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """Everything that a run folder holds."""

    folder: Path
    facts: Facts
    search: Search | None
    trainings: tuple[Training, ...]
    studies: tuple[Study, ...]
    notes: tuple[str, ...]


def read(folder: Path, storage: str | None = None, study: str | None = None) -> Run:
    """Read a run folder.

    Args:
        folder: Of `diswot search`, `distill` or `rank`, or one with such folders in it.
        storage: Optuna storage URL of a search that keeps its trials there.
        study: Name of the study in it.

    Raises:
        UserError: The folder holds nothing that diswot writes, or the storage cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"no such folder: {folder}")
    notes: list[str] = []
    facts = _json(folder / RUN, notes) or _json(folder / TRAINED, notes)
    search = _search(folder, facts, storage, study, notes)
    trainings = tuple(_trainings(folder, notes))
    studies = tuple(_studies(folder, notes))
    if search is None and not trainings and not studies:
        raise UserError(f"{folder} holds no search, no training and no rank study of diswot")
    return Run(folder, facts, search, trainings, studies, tuple(notes))


def _search(
    folder: Path, facts: Facts, storage: str | None, name: str | None, notes: list[str]
) -> Search | None:
    """The search in a folder, if there is one."""
    found = _json(folder / FOUND, notes)
    journal = folder / JOURNAL
    kept = facts.get("study") if isinstance(facts.get("study"), dict) else {}
    where = storage or (kept or {}).get("storage")
    if not found and not journal.is_file() and where is None:
        return None
    name = name or (kept or {}).get("name")
    study = None
    try:
        study = load_study(str(where) if where else journal, name)
    except UserError as error:
        if storage is not None:
            raise
        notes.append(str(error))
    trials = study.get_trials(deepcopy=False) if study else []
    config = {**_mapping(facts.get("config")), **_study_config(study)}
    candidates = tuple(_candidate(trial) for trial in trials)
    return Search(config, found, candidates or _top(found), study, _seconds(trials))


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


def _check_database(url: str) -> None:
    """Refuse a database without its password, and a file that opening would make."""
    if "***" in url:
        raise UserError("the trials are in a database; name it with --storage to show them")
    parts = make_url(url)
    if parts.get_backend_name() == "sqlite" and not Path(parts.database or "").is_file():
        raise UserError(f"the trials of the search are not in {parts.database}")


def _study_config(study: optuna.Study | None) -> Facts:
    return {} if study is None else _mapping(study.user_attrs.get("config"))


def _candidate(trial: FrozenTrial) -> Candidate:
    """A trial in the terms of the search."""
    end = _mapping(trial.user_attrs.get(END))
    kind = next((kind for kind in KINDS if kind in end), "running")
    costs = _numbers(end.get("costs"))
    over = _mapping(end.get("rejected"))
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
    columns = [c for c in _mapping(end.get("scores")).values() if isinstance(c, list)]
    values = [v for v in map(number, columns[0]) if v is not None] if len(columns) == 1 else []
    return standard_error(values)


def _top(found: Facts) -> tuple[Candidate, ...]:
    """The best as `found.json` has them, where the trials are out of reach."""
    rows = found.get("top")
    known = ("params", "trial", "score", "standard_error", "model_params", "macs")
    return tuple(
        Candidate(
            trial=int(number(row.get("trial")) or 0),
            params=_mapping(row.get("params")),
            end="scores",
            **{name: number(row.get(name)) for name in known[2:]},  # type: ignore[arg-type]
            extra={name: v for name, v in _numbers(row).items() if name in ("latency", "memory")},
        )
        for row in (rows if isinstance(rows, list) else [])
        if isinstance(row, dict)
    )


def _seconds(trials: list[FrozenTrial]) -> float | None:
    starts = [t.datetime_start for t in trials if t.datetime_start is not None]
    ends = [t.datetime_complete for t in trials if t.datetime_complete is not None]
    return (max(ends) - min(starts)).total_seconds() if starts and ends else None


def best_so_far(scores: list[float]) -> list[float]:
    """The highest score up to each trial."""
    return list(accumulate(scores, max))


def _trainings(folder: Path, notes: list[str]) -> Iterator[Training]:
    """Trainings in a folder and below, those with a history or a result."""
    for place in _below(folder, HISTORY, TRAINED):
        rows = []
        with _noted(notes):
            rows = _lines(place / HISTORY)
        result = _mapping(_json(place / TRAINED, notes).get("result"))
        if rows or result:
            yield Training(_name(place, folder), tuple(rows), result)


def _studies(folder: Path, notes: list[str]) -> Iterator[Study]:
    """Rank studies in a folder and below."""
    for place in _below(folder, RANKED):
        result = _json(place / RANKED, notes)
        if not isinstance(result.get("rows"), dict):
            continue
        accuracies: dict[str, list[float | None]] = {}
        scores: dict[str, list[float | None]] = {}
        names: tuple[str, ...] = ()
        with _noted(notes):
            names, accuracies, scores = _sheet(place / SCORES)
        yield Study(_name(place, folder), result, accuracies, scores, names)


def _sheet(
    path: Path,
) -> tuple[tuple[str, ...], dict[str, list[float | None]], dict[str, list[float | None]]]:
    from diswot.rank import sheet

    held = sheet.read(path)
    accuracies = {name: [number(v) for v in column] for name, column in held.accuracies.items()}
    scores = {name: [number(v) for v in column] for name, column in held.scores.items()}
    return held.names, accuracies, scores


def _below(folder: Path, *names: str) -> list[Path]:
    """Folders that hold a file of one of the names, the run folder first."""
    patterns = ["/".join(["*"] * depth + [name]) for depth in range(DEPTH) for name in names]
    return sorted({path.parent for pattern in patterns for path in folder.glob(pattern)})


def _name(place: Path, folder: Path) -> str:
    return folder.resolve().name if place == folder else str(place.relative_to(folder))


def _lines(path: Path) -> list[Mapping[str, float]]:
    """Rows of a history."""
    if not path.is_file():
        return []
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
        return [
            {str(k): v for k in row if (v := number(row[k])) is not None}
            for row in rows
            if isinstance(row, dict)
        ]
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error


def _json(path: Path, notes: list[str]) -> Facts:
    """A JSON object, or nothing; that it is damaged is noted."""
    if path.is_file():
        with _noted(notes):
            return files.read_json(path)
    return {}


@contextmanager
def _noted(notes: list[str]) -> Iterator[None]:
    """What cannot be read becomes a note in the report."""
    try:
        yield
    except UserError as error:
        notes.append(str(error))


def _numbers(value: object) -> dict[str, float]:
    """The finite numbers of a mapping."""
    return {k: v for k, inner in _mapping(value).items() if (v := number(inner)) is not None}


def _mapping(value: object) -> Facts:
    return dict(value) if isinstance(value, Mapping) else {}


def number(value: object) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if math.isfinite(value) else None

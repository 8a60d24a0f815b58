"""Reading of a whole run folder: nothing is written and nothing is unpickled.

Damaged files are left out, and a note names each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from diswot.errors import UserError
from diswot.nas.result import elapsed
from diswot.runs import trials
from diswot.runs.records import RankStudyRecord, Run, SearchRecord, TrainingRecord, top
from diswot.storage.run_files import FOUND, JOURNAL, RANKED, RUN, SCORES, TRAINED
from diswot.training.checkpoint import HISTORY, WEIGHTS
from diswot.utils import files, jsonl
from diswot.utils.untrusted import Facts, mapping, number

DEPTH = 3  # levels of folders that are searched for trainings and rank studies


def load_run(path: str | Path, storage: str | None = None, study: str | None = None) -> Run:
    """Read everything that a run folder holds.

    Args:
        path: Folder of `diswot search`, `distill` or `rank`, or a folder with such folders in it.
        storage: Optuna storage URL of the search's trials. Default: the one that the run folder
            records, or its journal.
        study: Name of the study in the storage. Default: the one that the run folder records.

    Returns:
        The search, the trainings and the rank studies. What cannot be read is named in `notes`.

    Raises:
        UserError: The folder holds nothing that diswot writes, or the storage cannot be read.
    """
    folder = Path(path)
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
) -> SearchRecord | None:
    """Return the search in a folder, if there is one."""
    found = _json(folder / FOUND, notes)
    journal = folder / JOURNAL
    kept = mapping(facts.get("study"))
    where, asked = storage or kept.get("storage"), storage is not None or name is not None
    if asked and not kept and (folder / TRAINED).is_file():
        raise UserError(f"{folder} holds a training; --storage and --study go with a search")
    if not found and not journal.is_file() and where is None:
        return None
    name = name or kept.get("name")
    study = None
    try:
        opened = trials.load_study(str(where) if where else journal, name)
        if where:
            trials.check_same(opened, folder, mapping(facts.get("config")), found)
        study = opened
    except UserError as error:
        if asked:
            raise
        notes.append(str(error))
    held = study.get_trials(deepcopy=False) if study else []
    own = mapping(study.user_attrs.get("config")) if study else {}
    config = {**mapping(facts.get("config")), **own}
    records = tuple(map(trials.trial_record, held))
    seconds = elapsed(held) if held else number(found.get("seconds"))
    return SearchRecord(config, found, records or top(found), study, seconds)


def _trainings(folder: Path, notes: list[str]) -> Iterator[TrainingRecord]:
    """Yield the trainings in a folder and below that have a history or a result."""
    for place in _below(folder, HISTORY, TRAINED):
        rows = []
        with _noted(notes):
            rows = _history(place / HISTORY)
        result = mapping(_json(place / TRAINED, notes).get("result"))
        if rows or result:
            weights = place / WEIGHTS
            kept = weights if weights.is_file() else None
            yield TrainingRecord(_name(place, folder), tuple(rows), result, kept)


def _studies(folder: Path, notes: list[str]) -> Iterator[RankStudyRecord]:
    """Yield the rank studies in a folder and below."""
    for place in _below(folder, RANKED):
        from diswot.ranking.score_columns import read_score_columns

        result = _json(place / RANKED, notes)
        if not isinstance(result.get("rows"), dict):
            continue
        accuracies: dict[str, list[float | None]] = {}
        scores: dict[str, list[float | None]] = {}
        names: tuple[str, ...] = ()
        with _noted(notes):
            held = read_score_columns(place / SCORES)
            names = held.names
            accuracies, scores = map(_finite, (held.accuracies, held.scores))
        yield RankStudyRecord(_name(place, folder), result, accuracies, scores, names)


def _finite(columns: Mapping[str, Sequence[float]]) -> dict[str, list[float | None]]:
    return {name: [number(value) for value in column] for name, column in columns.items()}


def _below(folder: Path, *names: str) -> list[Path]:
    """Return the folders that hold a file of one of the names, the run folder first."""
    patterns = ["/".join(["*"] * depth + [name]) for depth in range(DEPTH) for name in names]
    return sorted({path.parent for pattern in patterns for path in folder.glob(pattern)})


def _name(place: Path, folder: Path) -> str:
    return folder.resolve().name if place == folder else str(place.relative_to(folder))


def _history(path: Path) -> list[Mapping[str, float]]:
    return [
        {str(k): v for k in row if (v := number(row[k])) is not None}
        for row in jsonl.read_lines(path)
        if isinstance(row, dict)
    ]


def _json(path: Path, notes: list[str]) -> Facts:
    """Return a JSON object; an empty one for a missing or damaged file, with a note of damage."""
    if path.is_file():
        with _noted(notes):
            return files.read_json(path)
    return {}


@contextmanager
def _noted(notes: list[str]) -> Iterator[None]:
    """Turn an error of reading into a note."""
    try:
        yield
    except UserError as error:
        notes.append(str(error))

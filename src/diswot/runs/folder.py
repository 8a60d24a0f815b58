"""Run folders as a command finds them: used or free, finished or not, and by whom."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diswot.errors import UserError
from diswot.storage.run_files import FOUND, JOURNAL, RANKED, RUN, SCORES, TRAINED
from diswot.storage.run_writer import RANK_STUDY, kind, require_kind, write_run
from diswot.utils.environment import masked
from diswot.utils.files import read_json, write_json
from diswot.utils.untrusted import listed

if TYPE_CHECKING:
    from diswot.ranking.score_columns import ScoreColumns


RUNS = Path("runs")  # of runs whose folder the user does not name


class Stopped(Exception):
    """Ctrl-C; the message says how the run can be continued."""


@contextmanager
def resumable(place: object) -> Iterator[None]:
    """Turn Ctrl-C into a line that says whether the run can be continued."""
    try:
        yield
    except KeyboardInterrupt as stop:
        held = any(place.glob("*")) if isinstance(place, Path) else place
        kept = f"--resume continues {masked(str(place))}" if held else "nothing is kept"
        raise Stopped(f"stopped; {kept}") from stop


@contextmanager
def chosen(out: Path | None, name: str, *, no_out: bool) -> Iterator[Path | None]:
    """Give the folder that keeps a run: the user's `out`, or else a free one; None for none.

    The free one is the first of runs/NAME-1, runs/NAME-2 and so on. It is made at once, so that no
    other command takes it, and removed at the end if it is empty.

    Raises:
        UserError: The user names a folder and wants none, or the free one cannot be made.
    """
    if out is not None and no_out:
        raise UserError("give --out or --no-out, not both")
    if out is not None or no_out:
        yield out
        return
    plain = re.sub(r"[^\w.+-]+", "-", name).strip("-")
    try:
        RUNS.mkdir(exist_ok=True)
        place = next(place for n in count(1) if _made(place := RUNS / f"{plain}-{n}"))
    except OSError as error:
        raise UserError(f"cannot make a folder in {RUNS}: {error.strerror}; see --out") from error
    try:
        yield place
    finally:
        with suppress(OSError):
            place.rmdir()


def _made(folder: Path) -> bool:
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    return True


def refuse_used(folder: Path, wanted: str, *, resume: bool = False) -> None:
    """Refuse a folder that holds a run of another kind, or one that is not to be resumed.

    Raises:
        UserError: There is one.
    """
    require_kind(folder, wanted)
    if not resume and (folder / RUN).is_file():
        raise UserError(f"{folder} holds a {wanted} already; add --resume, or name another folder")


def has_trials(folder: Path) -> bool:
    """Say whether a folder holds the trials of a search, finished or not."""
    return (folder / JOURNAL).is_file()


def begin(folder: Path, config: dict[str, Any], *, resume: bool) -> None:
    """Write the configuration of a rank study, or check it against the one that is there.

    Raises:
        UserError: The folder is in use and not to be resumed, or its configuration differs.
    """
    refuse_used(folder, RANK_STUDY, resume=resume)
    write_run(folder, config)


def write_rank_study(folder: Path, result: Mapping[str, Any], sheet: ScoreColumns) -> None:
    """Write the result of a rank study, and its scores."""
    from diswot.ranking import score_columns

    score_columns.write_score_columns(folder / SCORES, sheet)
    write_json(folder / RANKED, result)


def is_training(run: Path) -> bool:
    """Say whether a folder holds a finished training, and no search."""
    return (run / TRAINED).is_file() and not (run / RUN).is_file()


def command(path: Path) -> str:
    """Return the command that a file of a run folder records; empty if it records none."""
    return " ".join(map(str, listed(read_json(path).get("command"))))


def search_config(run: Path) -> dict[str, Any]:
    """Return the configuration of a finished search, and in `student` the best student's JSON.

    Raises:
        UserError: There is no search, it has not finished, or its files are damaged.
    """
    from diswot.training.checkpoint import CHECKPOINT

    if is_training(run):
        raise UserError(f"{run} holds a training; name the folder of a search")
    if not (run / RUN).is_file() and (run / CHECKPOINT).is_file():
        raise UserError(f"the training in {run} has not finished; continue it with --resume")
    if not (run / RUN).is_file():
        raise UserError(f"{run} is no folder of a search: it has no {RUN}")
    config = read_json(run / RUN).get("config")
    if kind(config) == RANK_STUDY:
        raise UserError(f"{run} holds a rank study, not a search")
    if not (run / FOUND).is_file():
        raise UserError(f"the search in {run} has not finished; continue it with --resume")
    best = read_json(run / FOUND).get("best")
    if not isinstance(config, dict) or not isinstance(best, dict) or "params" not in best:
        raise UserError(f"{run}/{RUN} or {FOUND} is not what diswot writes")
    return {**config, "student": json.dumps(best["params"])}


def numbered_student(run: Path | None, student: str | None) -> str | None:
    """Return the JSON of a student that is named by its number in the table of a search.

    Any other text is returned unchanged.

    Raises:
        UserError: The table has no such number.
    """
    if run is None or student is None or not re.fullmatch("-?[0-9]{1,18}", student):
        return student
    found = read_json(run / FOUND) if (run / FOUND).is_file() else {}
    rows = found.get("front") or found.get("top")
    if not isinstance(rows, list) or not all(isinstance(r, dict) and "params" in r for r in rows):
        raise UserError(f"{run} has no finished search to take student {student} from")
    if not 0 <= int(student) < len(rows):
        raise UserError(f"the search in {run} lists students 0 to {len(rows) - 1}, not {student}")
    return json.dumps(rows[int(student)]["params"])


def training_result(folder: Path) -> dict[str, Any]:
    """Return the result of a finished training.

    Raises:
        UserError: There is none, or it is damaged.
    """
    result = read_json(folder / TRAINED).get("result")
    if not isinstance(result, dict):
        raise UserError(f"{folder}/{TRAINED} is not what diswot writes")
    return result


def recorded_classes(weights: str | Path | None) -> list[str] | None:
    """Return the classes that a training recorded beside its weights, by their names in the data.

    Returns:
        The names in the order of the logits; None if no training left the file, or none recorded
        them.
    """
    from diswot.training.checkpoint import WEIGHTS

    if weights is None or Path(weights).name != WEIGHTS:
        return None
    try:
        names = read_json(Path(weights).resolve().parent / TRAINED).get("class_names")
    except UserError:
        return None
    usable = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return names if usable and names else None


def training_results(run: Path) -> dict[str, dict[str, Any]]:
    """Return the results of the trainings in a run folder by folder, without damaged ones."""
    results = {}
    for path in sorted(run.glob(f"*/{TRAINED}")):
        with suppress(UserError):
            results[path.parent.name] = training_result(path.parent)
    return {name: result for name, result in results.items() if "losses" in result}

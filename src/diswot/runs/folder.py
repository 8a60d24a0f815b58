"""The run folder: what a search leaves, what the trainings in it leave, and how to go on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from diswot.errors import UserError
from diswot.storage.run_files import FOUND, JOURNAL, RUN, TRAINED


class Stopped(Exception):
    """The user pressed Ctrl-C; says how to go on."""


@contextmanager
def resumable(place: object) -> Iterator[None]:
    """Turn Ctrl-C into a line about what is kept at `place`, which may be None."""
    try:
        yield
    except KeyboardInterrupt as stop:
        kept = f"{place} goes on with --resume" if place else "nothing is kept without --out"
        raise Stopped(f"stopped; {kept}") from stop


def facts() -> dict[str, Any]:
    """What a result depends on."""
    from diswot.utils import environment

    return {
        "command": environment.command(),
        "versions": environment.versions(),
        "hardware": environment.hardware(),
    }


def refuse_used(folder: Path) -> None:
    """Refuse a folder that holds a search."""
    if (folder / RUN).exists():
        raise UserError(f"{folder} holds a search already; add --resume, or name another")


def nothing_yet(folder: Path) -> str | None:
    """What to say where a search is to be gone on with, and there is none."""
    if (folder / JOURNAL).is_file():
        return None
    return f"nothing to resume: {folder} holds no search; a new one begins"


def begin(folder: Path, config: dict[str, Any], *, resume: bool) -> None:
    """Note in a run folder how it was told to go; a resumed one must be told the same.

    Raises:
        UserError: The folder is in use and not to be resumed, or was told something else.
    """
    from diswot.utils import files

    path = folder / RUN
    if not path.exists():
        files.write_json(path, {**facts(), "config": config})
        return
    if not resume:
        raise UserError(f"{folder} holds a run already; add --resume, or name another")
    before = files.read_json(path).get("config")
    if not isinstance(before, dict) or before.keys() != config.keys():
        raise UserError(f"{folder} holds a run of another command")
    for name, value in config.items():
        if before[name] != value:
            raise UserError(f"the run to resume has {name} = {before[name]!r}, not {value!r}")


def is_training(run: Path) -> bool:
    """Whether a folder holds a training, and no search."""
    return (run / TRAINED).is_file() and not (run / RUN).is_file()


def command(path: Path) -> str:
    """The command that wrote a file, as far as it is kept."""
    from diswot.utils import files

    words = files.read_json(path).get("command")
    return " ".join(map(str, words)) if isinstance(words, list) else ""


def searched(run: Path) -> dict[str, Any]:
    """How a search was told to go, and the student it found, in JSON, as `student`.

    Raises:
        UserError: There is no search, it is not finished, or its files are damaged.
    """
    from diswot.training.checkpoint import CHECKPOINT
    from diswot.utils import files

    if is_training(run):
        raise UserError(f"{run} holds a training; name the folder of a search")
    if not (run / RUN).is_file() and (run / CHECKPOINT).is_file():
        raise UserError(f"the training in {run} has not finished; go on with it by --resume")
    if not (run / RUN).is_file():
        raise UserError(f"{run} is no folder of a search: it has no {RUN}")
    config = files.read_json(run / RUN).get("config")
    if isinstance(config, dict) and "table" in config:
        raise UserError(f"{run} holds a rank study, not a search")
    if not (run / FOUND).is_file():
        raise UserError(f"the search in {run} has not finished; go on with it by --resume")
    best = files.read_json(run / FOUND).get("best")
    if not isinstance(config, dict) or not isinstance(best, dict) or "params" not in best:
        raise UserError(f"{run}/{RUN} or {FOUND} is not what diswot writes")
    return {**config, "student": json.dumps(best["params"])}


def listed(run: Path | None, student: str | None) -> str | None:
    """A student by its number in the table that a search printed, in JSON; others as they are.

    Raises:
        UserError: The table is not that long.
    """
    from diswot.utils import files

    if run is None or student is None or not re.fullmatch("-?[0-9]{1,18}", student):
        return student
    found = files.read_json(run / FOUND) if (run / FOUND).is_file() else {}
    rows = found.get("front") or found.get("top")
    if not isinstance(rows, list) or not all(isinstance(r, dict) and "params" in r for r in rows):
        raise UserError(f"{run} has no finished search to take student {student} of")
    if not 0 <= int(student) < len(rows):
        raise UserError(f"the search in {run} lists students 0 to {len(rows) - 1}, no {student}")
    return json.dumps(rows[int(student)]["params"])


def trainings(run: Path) -> dict[str, dict[str, Any]]:
    """The results of the trainings in a run folder, by their folders; damaged ones are left out."""
    from diswot.utils import files

    results = {}
    for path in sorted(run.glob(f"*/{TRAINED}")):
        with suppress(UserError):
            results[path.parent.name] = files.read_json(path).get("result")
    return {name: r for name, r in results.items() if isinstance(r, dict) and "losses" in r}

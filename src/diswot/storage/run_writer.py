"""The files of a run folder that record a command with its environment, settings and result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diswot.errors import UserError
from diswot.storage.run_files import RUN, TRAINED
from diswot.utils import environment, files
from diswot.utils.agreement import plain, require_same

SEARCH, RANK_STUDY, TRAINING = "search", "rank study", "training"  # kinds of runs


def kind(config: object) -> str:
    """Return the kind of run that a configuration in `run.json` is of."""
    return RANK_STUDY if isinstance(config, Mapping) and "table" in config else SEARCH


def require_kind(folder: Path, wanted: str) -> None:
    """Refuse a folder that holds a run of another kind.

    Raises:
        UserError: It does.
    """
    path = folder / RUN
    held = kind(files.read_json(path).get("config")) if path.is_file() else wanted
    if held != wanted:
        raise UserError(f"{folder} holds a {held}; name another folder")


def write_run(folder: Path, config: Mapping[str, Any], **more: Any) -> None:
    """Write the command, the environment and a configuration, or compare with those there.

    Of a search only the facts that both configurations have are compared, since another version, or
    a search from Python, stores others.

    Args:
        folder: Run folder.
        config: Configuration of a search or a rank study.
        more: Other facts; of a search `study`: where its trials are, and under which name.

    Raises:
        UserError: The folder holds a run of another kind, or with another configuration.
    """
    path = folder / RUN
    require_kind(folder, kind(config))
    if not path.exists():
        run = {**environment.provenance(), "config": plain(config), **more}
        files.write_json(path, run)
        return
    before = files.read_json(path).get("config")
    if not isinstance(before, dict):
        raise UserError(f"{path} is not what diswot writes")
    facts = before.keys() | config.keys()
    if kind(config) == SEARCH:
        facts = before.keys() & config.keys()
    known, asked = ({name: held.get(name) for name in facts} for held in (before, config))
    require_same(known, asked, f"the {kind(config)} in {folder}")


def write_training(folder: Path, result: Mapping[str, Any], classes: Sequence[str]) -> None:
    """Write the result of a training, and the names of its classes in the order of the logits."""
    training = {**environment.provenance(), "class_names": [*classes], "result": plain(result)}
    files.write_json(folder / TRAINED, training)

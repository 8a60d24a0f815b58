"""The files of a run folder that record a command with its environment, settings and result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diswot.storage.run_files import RUN, TRAINED
from diswot.utils import environment, files
from diswot.utils.agreement import plain


def write_run(folder: Path, config: Mapping[str, Any], **more: Any) -> None:
    """Write the command, the environment and a configuration, unless they are there already.

    Args:
        folder: Run folder.
        config: Configuration of a search or a rank study.
        more: Other facts; of a search `study`: where its trials are, and under which name.
    """
    if not (folder / RUN).exists():
        run = {**environment.provenance(), "config": plain(config), **more}
        files.write_json(folder / RUN, run)


def write_training(folder: Path, result: Mapping[str, Any], classes: Sequence[str]) -> None:
    """Write the result of a training, and the names of its classes in the order of the logits."""
    training = {**environment.provenance(), "class_names": [*classes], "result": plain(result)}
    files.write_json(folder / TRAINED, training)

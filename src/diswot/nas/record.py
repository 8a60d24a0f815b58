"""What a search from Python leaves in its run folder beside the trials."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diswot.costs.latency import Setting
from diswot.data.dataset import BATCH, Dataset
from diswot.nas.compute import Compute
from diswot.nas.result import SearchResult
from diswot.spaces.named import NamedSpace
from diswot.spaces.validation import Build
from diswot.storage.run_files import FOUND, RUN
from diswot.utils import environment, files
from diswot.utils.agreement import plain


def named_facts(space: Build, data: object) -> dict[str, Any]:
    """Return the names and sizes that a space and a data set know of themselves."""
    facts: dict[str, Any] = {}
    if isinstance(data, Dataset):
        dense = {} if data.width is None else {"image_width": data.width, "task": data.task}
        facts |= {"data": data.name, "image_size": data.size, "batch_size": BATCH, **dense}
        facts |= {"mean": data.mean, "std": data.std}
    return {**facts, **space.facts} if isinstance(space, NamedSpace) else facts


def keep(
    folder: Path, name: str, config: Mapping[str, Any], compute: Compute, result: SearchResult
) -> None:
    """Write `found.json`, and `run.json` unless it is there.

    Args:
        folder: Run folder.
        name: Name of the study.
        config: Facts of the search.
        compute: How latency was measured.
        result: What the search found.
    """
    if not (folder / RUN).exists():
        study = {"storage": None, "name": name}
        run = {**environment.provenance(), "config": plain(config), "study": study}
        files.write_json(folder / RUN, run)
    how = compute.latency.facts if isinstance(compute.latency, Setting) else None
    files.write_json(folder / FOUND, {**result.as_dict(), "latency_setting": how, "like": None})

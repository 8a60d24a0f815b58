"""What a search records of its space and its data."""

from __future__ import annotations

from typing import Any

from diswot.data.dataset import BATCH, Dataset
from diswot.spaces.named import NamedSpace
from diswot.spaces.validation import Build


def named_facts(space: Build, data: object) -> dict[str, Any]:
    """Return the names and sizes that a space and a data set know of themselves."""
    facts: dict[str, Any] = {}
    if isinstance(data, Dataset):
        facts |= {"data": data.name, **data.image_facts, "batch_size": BATCH}
    return {**facts, **space.facts} if isinstance(space, NamedSpace) else facts

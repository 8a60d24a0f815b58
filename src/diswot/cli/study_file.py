"""The file of a study of many tables: TOML with settings for all tables, and for each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

from diswot.cli.options import DataOptions, ScoringOptions, TableOptions, TeacherOptions
from diswot.errors import UserError, unknown

_NAME = re.compile(r"\w[\w.+-]*")
_GROUPS = {"rows": TableOptions, "teacher": TeacherOptions, "data": DataOptions}
_GROUPS |= {"scoring": ScoringOptions}
_OWN = {"name": str, "targets": list[str], "space": str, "proxies": str}
_NOT_HERE = ("target", "study")
_MAY_BE_FILES = ("data", "space", "teacher", "proxies")
_PREFIX = re.compile(r"((?:subnet|dense|detector|hf):)?(.*)")  # of a name, before a path
_FUNCTION = re.compile(r"(.+?\.py)(:.*)?")


@dataclass(frozen=True)
class TableSettings:
    """The settings of one table of a study; without targets, `diswot rank` chooses one."""

    name: str = ""
    targets: list[str] = field(default_factory=list)
    space: str = "s0"
    proxies: str = ""
    rows: TableOptions = field(default_factory=TableOptions)
    teacher: TeacherOptions = field(default_factory=TeacherOptions)
    data: DataOptions = field(default_factory=DataOptions)
    scoring: ScoringOptions = field(default_factory=ScoringOptions)


def read_study(path: Path, common: TableSettings) -> list[TableSettings]:
    """Read the tables of a study.

    The keys are the long options of `diswot rank` with underscores. Those before the first
    `[[tables]]` hold for all tables. Paths in the file begin in its folder; those of `common`, as
    options of the command, in the current one.
    """
    from diswot.utils.files import read_toml

    given = read_toml(path)
    tables = given.pop("tables", None)
    if not isinstance(tables, list) or not tables or not all(isinstance(t, dict) for t in tables):
        raise UserError(f"{path} has no [[tables]]")
    try:
        shared = _with(common, given, path.parent)
        found = [_named(_with(shared, table, path.parent)) for table in tables]
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    names = [each.name for each in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"{path}: two tables are named {twice}; give each a name of its own")
    return found


def _named(settings: TableSettings) -> TableSettings:
    """Return settings with a name: by default that of the file."""
    if settings.rows.table is None:
        raise UserError("every one of the [[tables]] needs a file: table = ...")
    name = settings.name or settings.rows.table.name.partition(".")[0]
    if not _NAME.fullmatch(name):
        raise UserError(f"a name has letters, digits and . + - _ alone, not {name!r}")
    return replace(settings, name=name)


def _with(settings: TableSettings, given: Mapping[str, Any], folder: Path) -> TableSettings:
    """Return settings with some changed, by the names of the options."""

    def value(key: str, kind: object) -> object:
        return _placed(folder, key, _typed(key, kind, left.pop(key)))

    left = dict(given)
    changes: dict[str, Any] = {key: value(key, kind) for key, kind in _OWN.items() if key in left}
    known = [*_OWN]
    for group, kind in _GROUPS.items():
        hints = get_type_hints(kind)
        names = [each.name for each in fields(kind) if each.name not in _NOT_HERE]
        known += names
        inner: dict[str, Any] = {key: value(key, hints[key]) for key in names if key in left}
        changes[group] = replace(getattr(settings, group), **inner)
    if left:
        raise unknown("key", min(left), known)
    return replace(settings, **changes)


def _placed(folder: Path, key: str, value: object) -> object:
    """Return a value whose path, if it is or names one, begins in a folder.

    Raises:
        UserError: There is no such file. The folder of `data_root` may be made by a download.
    """
    if isinstance(value, Path):
        return folder / value if key == "data_root" else _existing(folder / value, key)
    if key not in _MAY_BE_FILES or not isinstance(value, str):
        return value
    names = value.split(",") if key == "proxies" else [value]
    return ",".join(_placed_name(folder, key, name.strip()) for name in names)


def _placed_name(folder: Path, key: str, name: str) -> str:
    """Return the name of a data set, a space, a teacher or a score, whose path begins in a folder.

    Images are a path if there is such a file or folder, or the text looks like one.
    """
    parts = _PREFIX.fullmatch(name)
    assert parts is not None
    prefix, path = parts.groups("")
    if function := _FUNCTION.fullmatch(path):
        file, rest = function.groups("")
        return f"{prefix}{_existing(folder / file, key)}{rest}"
    there = (folder / path).exists() or Path(path).exists() or path.endswith(".parquet")
    is_path = ("/" in path and not prefix) or there
    return f"{prefix}{_existing(folder / path, key)}" if key == "data" and is_path else name


def _existing(path: Path, key: str) -> Path:
    if not path.exists():
        raise UserError(f"{key}: no such file: {path}; paths begin in the folder of the study file")
    return path


def _typed(key: str, hint: Any, value: object) -> object:
    """Check the type of a value, and make a path of a text where an option is one."""
    is_list = list[str] in (hint, *get_args(hint))
    if is_list and isinstance(value, list) and all(isinstance(each, str) for each in value):
        return value
    kinds = [kind for kind in (get_args(hint) or (hint,)) if kind is not NoneType]
    if not is_list and Path in kinds and isinstance(value, str):
        return Path(value)
    if not is_list and type(value) in kinds:
        return value
    said = "a list of texts" if is_list else {Path: "a text", str: "a text", int: "a whole number"}
    what = said if isinstance(said, str) else said.get(kinds[0], "true or false")
    raise UserError(f"{key} must be {what}, not {value!r}")

"""Rows of a file as dicts: CSV and JSON, plain or gzipped."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

from diswot.errors import UserError

Record = dict[str, Any]

_MOST = 2**30  # bytes, unpacked


def read_records(path: Path) -> list[Record]:
    """A dict a row; the cells of a CSV file are strings.

    Raises:
        UserError: There is no such file, its kind is unknown, or it is damaged.
    """
    name = path.name.lower().removesuffix(".gz")
    parsers: dict[str, Callable[[str], list[Record]]] = {
        ".csv": _csv,
        ".json": _json,
        ".jsonl": _lines,
    }
    parse = parsers.get(Path(name).suffix)
    if parse is None:
        known = ", ".join(parsers)
        raise UserError(f"{path} is no table: its name must end in one of {known}, or that and .gz")
    try:
        return parse(_text(path))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except RecursionError as error:
        raise UserError(f"{path}: is nested too deeply") from error


def _text(path: Path) -> str:
    try:
        data = _unpacked(path) if path.name.lower().endswith(".gz") else path.read_bytes()
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"is not UTF-8 text (byte {error.start})") from error
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(getattr(error, "strerror", None) or str(error)) from error


def _unpacked(path: Path) -> bytes:
    with gzip.open(path) as file:
        data = file.read(_MOST + 1)
    if len(data) > _MOST:
        raise UserError("is larger than 1 GiB, unpacked")
    return data


def _csv(text: str) -> list[Record]:
    try:
        header, *rows = csv.reader(StringIO(text, newline=""), strict=True)
    except ValueError as error:
        raise UserError("the file is empty") from error
    except csv.Error as error:
        raise UserError(f"is no CSV: {error}") from error
    names = [name.strip() for name in header]
    if len(set(names)) != len(names) or not all(names):
        raise UserError("its first line must name every column once")
    found = [row for row in rows if row]
    for number, row in enumerate(found, 1):
        if len(row) != len(names):
            raise UserError(f"row {number} has {len(row)} cells, the first line {len(names)}")
    return [{n: cell.strip() for n, cell in zip(names, row, strict=True)} for row in found]


def _json(text: str) -> list[Record]:
    value = _parsed(text, "")
    if isinstance(value, dict) and isinstance(value.get("rows"), list):
        value = value["rows"]
    if not isinstance(value, list):
        raise UserError("is no list of rows")
    return list(_dicts(value))


def _lines(text: str) -> list[Record]:
    lines = enumerate(text.splitlines(), 1)
    return list(_dicts([_parsed(line, f"line {n}: ") for n, line in lines if line.strip()]))


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(f"{where}is no JSON: {error}") from error


def _dicts(values: list[Any]) -> Iterator[Record]:
    for number, value in enumerate(values, 1):
        if not isinstance(value, dict):
            raise UserError(f"row {number} is no object")
        yield value

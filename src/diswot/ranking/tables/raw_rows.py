"""Rows of CSV and JSON files as mappings, plain or gzipped."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from diswot.errors import UserError

RawRow = Mapping[str, Any]  # cells by column, before the space has read them

_MAX_BYTES = 2**30  # size of an unpacked file


def read_raw_rows(path: Path) -> list[RawRow]:
    """Read the rows of a file; the cells of a CSV file are strings.

    Raises:
        UserError: The file does not exist, has an unknown ending, or is damaged.
    """
    name = path.name.lower().removesuffix(".gz")
    parsers: dict[str, Callable[[str], list[RawRow]]] = {
        ".csv": _csv,
        ".json": _json,
        ".jsonl": _lines,
    }
    parse = parsers.get(Path(name).suffix)
    if parse is None:
        known = ", ".join(parsers)
        raise UserError(f"{path}: the name of a table ends in one of {known}, with or without .gz")
    try:
        return parse(_text(path))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except RecursionError as error:
        raise UserError(f"{path}: JSON is nested too deeply") from error


def _text(path: Path) -> str:
    try:
        data = _unpacked(path) if path.name.lower().endswith(".gz") else path.read_bytes()
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8 text (byte {error.start})") from error
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(getattr(error, "strerror", None) or str(error)) from error


def _unpacked(path: Path) -> bytes:
    with gzip.open(path) as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise UserError("larger than 1 GiB when unpacked")
    return data


def _csv(text: str) -> list[RawRow]:
    try:
        header, *rows = csv.reader(StringIO(text, newline=""), strict=True)
    except ValueError as error:
        raise UserError("the file is empty") from error
    except csv.Error as error:
        raise UserError(f"invalid CSV: {error}") from error
    names = [name.strip() for name in header]
    if names and not names[0]:
        names[0] = "Unnamed: 0"  # index of a data frame
    if len(set(names)) != len(names) or not all(names):
        raise UserError("the first line must name every column once")
    found = [row for row in rows if row]
    if len(names) == 1 and (other := next((sign for sign in ";\t|" if sign in names[0]), None)):
        raise UserError(f"its cells are separated by {other!r}: separate them by commas")
    for number, row in enumerate(found, 1):
        if len(row) != len(names):
            raise UserError(f"row {number} has {len(row)} cells, the first line {len(names)}")
    return [{n: cell.strip() for n, cell in zip(names, row, strict=True)} for row in found]


def _json(text: str) -> list[RawRow]:
    value = _parsed(text, "")
    if isinstance(value, dict) and isinstance(value.get("rows"), list):
        value = value["rows"]
    if not isinstance(value, list):
        raise UserError("the JSON value is not a list of rows")
    return list(_dicts(value))


def _lines(text: str) -> list[RawRow]:
    lines = enumerate(text.splitlines(), 1)
    return list(_dicts([_parsed(line, f"line {n}: ") for n, line in lines if line.strip()]))


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(f"{where}invalid JSON: {error}") from error


def _dicts(values: list[Any]) -> Iterator[RawRow]:
    for number, value in enumerate(values, 1):
        if not isinstance(value, dict):
            raise UserError(f"row {number} is not a JSON object")
        yield value

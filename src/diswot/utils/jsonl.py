"""Files of JSON lines, with one reader and one writer for all of them.

A process that is killed while it writes leaves a torn last line. Readers stop before a torn line,
and the next `append` cuts it off, so that every other line is whole.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from diswot.errors import UserError
from diswot.utils.files import write_text

if sys.platform != "win32":
    import fcntl


def read_lines(path: Path, *, skip_damaged: bool = False) -> Iterator[Any]:
    """Yield the value of each whole line; nothing if there is no file.

    If `skip_damaged`, lines that are not JSON are passed over.

    Raises:
        UserError: The file cannot be read, or a line is not JSON.
    """
    if not path.exists():
        return
    try:
        with path.open("rb") as file:
            for number, line in enumerate(_whole_lines(file), 1):
                try:
                    value = json.loads(line)
                except (ValueError, RecursionError) as error:
                    if skip_damaged:
                        continue
                    raise UserError(f"{path}, line {number}, is not what diswot writes") from error
                yield value
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def read_from(path: Path, position: int) -> Iterator[tuple[Any, int]]:
    """Yield the value of each whole line from a position in bytes, and the position after the line.

    Raises:
        OSError: The file cannot be read.
        ValueError: A line is not JSON.
    """
    with path.open("rb") as file:
        file.seek(position)
        for line in _whole_lines(file):
            position += len(line)
            yield json.loads(line), position


def append(path: Path, rows: Iterable[object], *, sync: bool = False) -> None:
    """Append one line a row in place of a torn last line; other processes wait meanwhile.

    The file is made if need be, its folder is not. If `sync`, wait until the disk holds the rows.

    Raises:
        OSError: The file cannot be written.
    """
    lines = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows).encode()
    with path.open("ab+") as file:
        if sys.platform != "win32":
            fcntl.flock(file, fcntl.LOCK_EX)  # the system lets go when the file is closed
        _cut_torn_line(file)
        file.write(lines)
        file.flush()
        if sync:
            os.fsync(file.fileno())


def write_lines(path: Path, rows: Iterable[object]) -> None:
    """Write a whole file, one line a row, in place of what was there.

    Raises:
        UserError: The file cannot be written.
    """
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def _whole_lines(file: BinaryIO) -> Iterator[bytes]:
    for line in file:
        if not line.endswith(b"\n"):
            return
        yield line


def _cut_torn_line(file: BinaryIO) -> None:
    """Truncate a file after its last line end."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 1))
    if size and file.read() != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)

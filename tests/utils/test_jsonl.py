from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
from full_disk import full_disk

from diswot.errors import UserError
from diswot.utils import jsonl

LINE = b'{"a":1}\n'


def test_what_is_appended_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    jsonl.append(path, [{"a": 1}])
    jsonl.append(path, [[2, None], "é\n"], sync=True)
    jsonl.append(path, [])

    assert path.read_bytes() == LINE + b'[2,null]\n"\\u00e9\\n"\n'
    assert list(jsonl.read_lines(path)) == [{"a": 1}, [2, None], "é\n"]


def test_a_file_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.jsonl"
    jsonl.write_lines(path, [{"a": 1}, {"a": 2}])
    jsonl.write_lines(path, [{"a": 3}])

    assert list(jsonl.read_lines(path)) == [{"a": 3}]
    assert [each.name for each in path.parent.iterdir()] == ["rows.jsonl"]


def test_no_file_has_no_lines(tmp_path: Path) -> None:
    assert list(jsonl.read_lines(tmp_path / "none")) == []


@pytest.mark.parametrize(
    ("torn", "whole"),
    [
        (b"", b""),
        (b"x", b""),
        (LINE, LINE),
        (LINE + LINE[:-1], LINE),
        (LINE * 3 + b"\xff", LINE * 3),
        (LINE * 3 + b"x" * 4096, LINE * 3),  # as long as what is searched at a time
        (LINE * 3 + b"x" * 9000, LINE * 3),
        (b"x" * 9000, b""),
        (b"x" * 9000 + b"\n", b"x" * 9000 + b"\n"),
    ],
)
def test_torn_last_line_is_not_read_and_is_cut_off(
    torn: bytes, whole: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(torn)
    if b"x\n" not in torn:
        assert list(jsonl.read_lines(path)) == [{"a": 1}] * whole.count(b"\n")

    jsonl.append(path, [{"b": 2}])

    assert path.read_bytes() == whole + b'{"b":2}\n'


@pytest.mark.parametrize("damage", [b"x\n", b"\n", b"\xff\n", b"{\x00}\n", b"[" * 99999 + b"\n"])
def test_damaged_line_is_named_or_passed_over(damage: bytes, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(LINE + damage + LINE)

    with pytest.raises(UserError, match=r"rows\.jsonl, line 2, is not what diswot writes"):
        list(jsonl.read_lines(path))
    assert list(jsonl.read_lines(path, skip_damaged=True)) == [{"a": 1}] * 2


def test_a_folder_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*: Is a directory"):
        list(jsonl.read_lines(tmp_path))


def test_reading_goes_on_from_a_position(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    jsonl.append(path, [1, 22])
    assert list(jsonl.read_from(path, 0)) == [(1, 2), (22, 5)]
    with path.open("ab") as file:
        file.write(b"33")
    assert list(jsonl.read_from(path, 5)) == []
    with path.open("ab") as file:
        file.write(b"3\n")
    assert list(jsonl.read_from(path, 5)) == [(333, 9)]


def test_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    jsonl.append(path, ["a" * 50])
    with pytest.raises(OSError), full_disk(80):
        jsonl.append(path, ["b" * 50])

    assert path.stat().st_size == 80
    assert list(jsonl.read_lines(path)) == ["a" * 50]
    jsonl.append(path, ["c"])
    assert list(jsonl.read_lines(path)) == ["a" * 50, "c"]


def write_many(path: Path, mark: int) -> None:
    for number in range(200):
        jsonl.append(path, [[mark, number, "x" * 300]])


def test_processes_write_to_one_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_many, args=(path, mark)) for mark in (0, 1)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    rows: list[Any] = list(jsonl.read_lines(path))
    for mark in (0, 1):
        assert [row[1] for row in rows if row[0] == mark] == list(range(200))


def test_a_writer_waits_for_another(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    context = multiprocessing.get_context("fork")
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        writer = context.Process(target=jsonl.append, args=(path, [1]))
        writer.start()
        writer.join(0.3)
        assert writer.is_alive() and os.path.getsize(path) == 0
        fcntl.flock(file, fcntl.LOCK_UN)
        writer.join(60)
    assert json.loads(path.read_bytes()) == 1

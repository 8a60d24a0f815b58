"""Versions, hardware, and a command line without passwords."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from diswot.utils import environment


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://me:secret@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("mysql+pymysql://me:a@b@host/db", "mysql+pymysql://me:***@host/db"),
        ("postgresql://me:a/b@host/db", "postgresql://me:***@host/db"),
        ("redis://:secret@host", "redis://:***@host"),
        ("--storage=postgresql://me:s@host/db", "--storage=postgresql://me:***@host/db"),
        ("postgresql://h/db?user=me&password=s&a=b", "postgresql://h/db?user=me&password=***&a=b"),
        ("a://b:c@d e://f:g@h", "a://b:***@d e://f:***@h"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("http://host:8080/page", "http://host:8080/page"),
        ("sqlite:////folder/studies.db", "sqlite:////folder/studies.db"),
        ("mine.py:space", "mine.py:space"),
    ],
)
def test_passwords_of_addresses_are_masked(text: str, expected: str) -> None:
    assert environment.without_passwords(text) == expected


def test_command_is_that_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["/some/where/diswot", "search", "--storage", "a://me:secret@host", "--trials", "3"]
    monkeypatch.setattr(sys, "argv", words)

    expected = ["diswot", "search", "--storage", "a://me:***@host", "--trials", "3"]
    assert environment.command() == expected


def test_versions_are_those_installed() -> None:
    found = environment.versions()

    assert found.pop("python") == ".".join(map(str, sys.version_info[:3]))
    assert list(found) == ["diswot", "torch", "torchvision", "timm", "optuna", "numpy"]
    assert found["torch"] == version("torch") and found["optuna"] == version("optuna")


def test_facts_are_plain() -> None:
    assert all(environment.hardware().values())
    json.dumps([environment.versions(), environment.hardware(), environment.command()])


@pytest.fixture
def cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands in for /proc/cpuinfo; not there yet."""
    path = tmp_path / "cpuinfo"
    monkeypatch.setattr(environment, "Path", {"/proc/cpuinfo": path}.__getitem__)
    monkeypatch.setattr(environment.platform, "machine", lambda: "made-of-brass")
    monkeypatch.setattr(environment.platform, "processor", lambda: "")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return path


def test_processor_is_the_first_that_linux_names(cpuinfo: Path) -> None:
    cpuinfo.write_text(
        "processor\t: 0\nmodel\t: 17\nmodel name\t: Engine: Mark I\n"
        "processor\t: 1\nmodel name\t: Another\n"
    )
    expected = {"machine": "made-of-brass", "processor": "Engine: Mark I", "threads": 3}
    assert environment.hardware() == expected


@pytest.mark.parametrize("lines", [None, "", "Hardware\t: some board\n"])
@pytest.mark.parametrize(("known", "expected"), [("arm", "arm"), ("", "unknown")])
def test_processor_without_a_name_is_what_python_knows(
    lines: str | None, known: str, expected: str, cpuinfo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if lines is not None:
        cpuinfo.write_text(lines)
    monkeypatch.setattr(environment.platform, "processor", lambda: known)

    assert environment.hardware()["processor"] == expected


def test_card_is_named_where_there_is_one(cpuinfo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")

    assert environment.hardware()["gpu"] == "a card"

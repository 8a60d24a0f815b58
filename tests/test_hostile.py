"""Damaged texts, tables, recipes, checkpoints and run folders: each is reported as a mistake."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
import toyspaces
from hypothesis import given, settings
from hypothesis import strategies as some
from searching import search

from diswot.cli import budgets
from diswot.errors import UserError
from diswot.ranking.tables.read import read_table
from diswot.reports.report import report
from diswot.runs import folder
from diswot.runs.read import load_run
from diswot.runs.rebuild import recorded_student
from diswot.spaces import nasbench101, nasbench201
from diswot.spaces.registry import build_network, create_space
from diswot.storage.run_files import JOURNAL
from diswot.storage.study import open_storage
from diswot.training.recipe import parse_losses
from diswot.training.recipe_files import load_recipe
from diswot.utils import files, state_dicts
from diswot.utils.units import parse_bytes, parse_count, parse_seconds

assert toyspaces

QUICK = settings(max_examples=40, deadline=None)
FEW = settings(max_examples=5, deadline=None)

JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=8),
    lambda inner: (
        some.lists(inner, max_size=4) | some.dictionaries(some.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)


def edited(whole: bytes) -> some.SearchStrategy[bytes]:
    """Bytes that are nearly the given ones: cut, with some replaced or repeated."""
    places = some.integers(0, len(whole))

    def edit(start: int, end: int, new: bytes) -> bytes:
        return whole[: min(start, end)] + new + whole[max(start, end) :]

    return some.builds(edit, places, places, some.binary(max_size=6) | some.just(whole[:40]))


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(autouse=True)
def nothing_beside(room: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No file appears in the folder where the process is."""
    place = room / "here"
    place.mkdir(exist_ok=True)
    monkeypatch.chdir(place)
    yield
    assert not list(place.iterdir())


# Texts

NUMBERS = some.text(max_size=12) | some.from_regex(r"\A[0-9.]{0,9}(e[0-9]{0,3})?[ KMGBisu]{0,3}\Z")
CELLS = some.text(max_size=40) | some.lists(
    some.sampled_from(["|", "+", "~", "0", "1", "none", "nor_conv_3x3", "skip_connect", "²"]),
    max_size=24,
).map("".join)
LOSSES = some.text(max_size=16) | some.lists(
    some.sampled_from(["kd", "at", "none", ":", ",", "1", "-1", "nan", "1e999", " "]), max_size=9
).map("".join)

PARSERS: list[tuple[Callable[[str], Any], some.SearchStrategy[str]]] = [
    (parse_count, NUMBERS),
    (parse_bytes, NUMBERS),
    (parse_seconds, NUMBERS),
    (budgets.objectives, NUMBERS),
    (parse_losses, LOSSES),
    (nasbench201.from_string, CELLS),
    (lambda text: load_recipe(text), some.text(max_size=12)),
    (lambda text: create_space(text, 10, 8), some.text(max_size=12)),
]


@pytest.mark.parametrize(("parse", "texts"), PARSERS, ids=range(len(PARSERS)))
def test_texts_are_read_or_refused(
    parse: Callable[[str], Any], texts: some.SearchStrategy[str]
) -> None:
    @QUICK
    @given(text=texts)
    def hold(text: str) -> None:
        with suppress(UserError):
            parse(text)

    hold()


@QUICK
@given(
    matrix=some.lists(some.lists(some.integers(-1, 2), max_size=8), max_size=8),
    operations=some.lists(some.sampled_from(["input", "output", "conv3x3-bn-relu", "x"])),
)
def test_matrices_are_read_or_refused(matrix: list[list[int]], operations: list[str]) -> None:
    with suppress(UserError):
        nasbench101.from_matrix(matrix, operations)


@QUICK
@given(params=some.dictionaries(some.sampled_from(["blocks1", "blocks2", "x"]), JSON) | JSON)
def test_parameters_of_any_kind(params: Any) -> None:
    with suppress(UserError):
        build_network(create_space("s0", 10), params if isinstance(params, dict) else {"x": params})


# Files

CSV = b"blocks1,blocks2,blocks3,accuracy\n1,3,5,70.5\n3,3,3,71\n5,1,7,\n"
ROWS = b'[{"params": {"blocks1": 1, "blocks2": 3, "blocks3": 5}, "accuracy": 0.7}]'
CELL = b"arch,acc\n|none~0|+|none~0|none~1|+|none~0|none~1|none~2|,70\n"
TABLES = [("a.csv", "s0", CSV), ("a.json", "s0", ROWS), ("b.csv", "nasbench201", CELL)]


@pytest.mark.parametrize(("name", "space", "whole"), TABLES)
def test_tables_are_read_or_refused(room: Path, name: str, space: str, whole: bytes) -> None:
    @QUICK
    @given(content=edited(whole) | some.binary(max_size=60) | JSON.map(lambda v: dumped(v)))
    def hold(content: bytes) -> None:
        (room / name).write_bytes(content)
        with suppress(UserError):
            read_table(room / name, space)

    hold()


def dumped(value: Any) -> bytes:
    return json.dumps(value).encode()


RECIPE = b'epochs = 12\nlr = 0.1\nschedule = "step"\nmilestones = [3, 6.5]\nlosses = {kd = 1.0}\n'
VALUES = some.sampled_from(
    ["1", "-1", "1e400", "nan", "inf", "true", '""', "[]", "{}", "1979-05-27", "[[1]]", "9" * 400]
)
LINES = some.builds("{} = {}\n".format, some.sampled_from(["epochs", "lr", "milestones", "losses",
    "seed", "crop", "precision", "temperature", "ema"]), VALUES)  # fmt: skip


@QUICK
@given(content=edited(RECIPE) | some.lists(LINES, max_size=3).map(lambda x: "".join(x).encode()))
def test_recipes_are_read_or_refused(room: Path, content: bytes) -> None:
    (room / "mine.toml").write_bytes(content)
    with suppress(UserError):
        load_recipe(str(room / "mine.toml"), epochs=7)


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
def test_checkpoints_are_read_or_refused(room: Path, name: str) -> None:
    path = room / name
    model = torch.nn.Linear(2, 2)
    if name.endswith("pt"):
        torch.save(model.state_dict(), path)
    else:
        state_dicts.save_weights(model, path)
    whole = path.read_bytes()

    @QUICK
    @given(content=edited(whole) | some.binary(max_size=80))
    def hold(content: bytes) -> None:
        path.write_bytes(content)
        with suppress(UserError):
            state_dicts.read_weights(path)

    hold()


def test_zip_of_something_else_is_no_checkpoint(room: Path) -> None:
    with zipfile.ZipFile(room / "z.pt", "w") as file:
        file.writestr("archive/data.pkl", b"cos\nsystem\n(S'touch here'\ntR.")
        file.writestr("../escaped", b"x")
    with pytest.raises(UserError):
        state_dicts.read_weights(room / "z.pt")
    assert not (room.parent / "escaped").exists()


# Run folders


@pytest.fixture(scope="module")
def found(room: Path) -> dict[str, bytes]:
    """What a search leaves, as `diswot search` writes it."""
    place = room / "found"
    config = {"teacher": "resnet20", "space": "s0", "data": "noise", "classes": 5}
    result = search(toyspaces.teacher(), toyspaces.tiny, toyspaces.batch(), trials=3,
                    proxy="params", storage=place)  # fmt: skip
    files.write_json(place / folder.RUN, {"command": "x", "config": config})
    files.write_json(place / folder.FOUND, result.as_dict())
    return {name: (place / name).read_bytes() for name in (folder.RUN, folder.FOUND, JOURNAL)}


@pytest.mark.parametrize("name", [folder.RUN, folder.FOUND, JOURNAL])
def test_run_folders_are_read_or_refused(room: Path, found: dict[str, bytes], name: str) -> None:
    place = room / "run"
    place.mkdir(exist_ok=True)
    whole = found[name]

    @FEW
    @given(content=edited(whole) | JSON.map(dumped))
    def hold(content: bytes) -> None:
        for each, kept in found.items():
            (place / each).write_bytes(content if each == name else kept)
        for act in (recorded_student, load_run, lambda run: report(run, networks=False), studied):
            with suppress(UserError):
                act(place)
        assert {path.name for path in place.iterdir()} <= {*found, "report.html"}

    before = {path.name for path in room.iterdir()}
    hold()
    assert {path.name for path in room.iterdir()} == before


def studied(place: Path) -> None:
    """Open the study, as a resumed search does."""
    optuna.create_study(storage=open_storage(place), study_name="diswot", load_if_exists=True)

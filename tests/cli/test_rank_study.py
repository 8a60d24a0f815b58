"""`diswot rank --study`: many tables at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from commands import Run

from diswot.ranking import score_table

ROWS = ["1,1,1,60,62", "3,1,1,61.5,64", "1,3,1,62,63", "1,1,3,62.5,66", "3,3,1,63,66.5"]
CELLS = ["1-2-1-2-1-0,50", "3-0-1-2-1-0,40", "1-1-3-3-2-1,60"]
TOML = """
batch_size = 4
image_size = 8
classes = 10
teacher = "resnet20"
proxies = "zen"

[[tables]]
name = "residual"
table = "{folder}/s0.csv"
targets = ["distilled_acc", "vanilla_acc"]
limit = 4

[[tables]]
table = "{folder}/cells.csv.gz"
space = "transnas_micro"
where = ["acc>30"]
image_size = 32
proxies = "zen,naswot"
"""

OWN = """
from diswot.models.registry import create_teacher

def net(num_classes):
    return create_teacher("resnet20", num_classes)

def width(candidate):
    return float(sum(p.numel() for p in candidate.student.parameters()))
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    import gzip

    lines = ["blocks1,blocks2,blocks3,vanilla_acc,distilled_acc", *ROWS]
    (tmp_path / "s0.csv").write_text("\n".join(lines))
    (tmp_path / "cells.csv.gz").write_bytes(gzip.compress("\n".join(["arch,acc", *CELLS]).encode()))
    path = tmp_path / "study.toml"
    path.write_text(TOML.format(folder=tmp_path))
    return path


def test_a_matrix_of_scores_and_targets(
    run: Run, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    found = run(f"rank --study {study} --out {out} --json").json

    names = [(each["table"], each["target"], each["n"]) for each in found["targets"]]
    assert names == [
        ("residual", "distilled_acc", 4),
        ("residual", "vanilla_acc", 4),
        ("cells", "acc", 3),
    ]
    assert found["scores"].keys() == {"zen", "naswot", "params", "macs", "depth", "size"}
    assert found["scores"]["naswot"]["taus"][:2] == [None, None]
    assert found["scores"]["naswot"]["n"] == 1

    line = f"rank --table {tmp_path}/s0.csv --limit 4 --teacher resnet20 --classes 10"
    alone = run(f"{line} --batch-size 4 --image-size 8 --proxies zen --json").json["rows"]
    taus = {name: row["taus"][0] for name, row in found["scores"].items() if name != "naswot"}
    assert taus == pytest.approx({name: alone[name]["kendall"] for name in taus})

    page = (out / "matrix.html").read_text()
    assert "naswot" in page and "distilled_acc" in page and "<script" not in page
    assert json.loads((out / "matrix.json").read_text())["scores"] == found["scores"]
    assert {"scores.csv", "scores.jsonl", "run.json"} <= {
        path.name for path in (out / "cells").iterdir()
    }

    assert "add --resume" in run(f"rank --study {study} --out {out}").mistake()
    monkeypatch.setattr(score_table, "score_one", lambda *a: pytest.fail("scored again"))
    assert run(f"rank --study {study} --out {out} --resume --json").json == found


def test_paths_begin_in_the_folder_of_the_file(
    run: Run, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.py").write_text(OWN)
    text = study.read_text().replace(f"{tmp_path}/", "").replace('"zen"', '"zen,own.py:width"')
    study.write_text(text.replace('"resnet20"', '"own.py:net"'))
    expected = run(f"rank --study {study} --json").json
    elsewhere = tmp_path / "else" / "where"
    elsewhere.mkdir(parents=True)
    monkeypatch.chdir(elsewhere)

    for path in (str(study), "../../study.toml"):
        found = run(f"rank --study {path} --json").json
        assert found["targets"] == expected["targets"]
        taus = [row["taus"] for row in found["scores"].values()]
        assert taus == [row["taus"] for row in expected["scores"].values()] and len(taus) == 7


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('table = "none.csv"', "table: no such file: {}/none.csv; paths begin in the folder of"),
        ('teacher_weights = "w.pt"', "teacher_weights: no such file: {}/w.pt;"),
        ('data = "pictures/train"', "data: no such file: {}/pictures/train;"),
        ('data = "here"', "data: no such file: {}/here;"),
        ('data = "cifar1O"', "cifar1O"),
        ('space = "mine.py:space"', "space: no such file: {}/mine.py;"),
        ('space = "dense:mine.py:space+lraspp"', "space: no such file: {}/mine.py;"),
        ('teacher = "mine.py:net"', "teacher: no such file: {}/mine.py;"),
        ('proxies = "zen,mine.py:score"', "proxies: no such file: {}/mine.py;"),
    ],
)
def test_a_file_that_is_absent_beside_the_study(
    text: str, said: str, run: Run, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the current folder has it."""
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "here").mkdir(parents=True)
    for name in ("none.csv", "w.pt", "mine.py"):
        (elsewhere / name).touch()
    monkeypatch.chdir(elsewhere)
    key = text.partition(" ")[0]
    lines = [line for line in study.read_text().splitlines() if not line.startswith(f"{key} =")]
    study.write_text("\n".join(lines).replace("[[tables]]", f"[[tables]]\n{text}"))

    assert said.format(tmp_path) in run(f"rank --study {study} --quiet").mistake()


def test_the_table_on_the_terminal(run: Run, study: Path) -> None:
    study.write_text(study.read_text().replace("zen,naswot", "params"))
    ran = run(f"rank --study {study} --quiet")

    assert ran.status == 0
    assert "3 targets" in ran.out and "at or above" in ran.out and "3 of 3" in ran.out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("limit = 4", "limits = 4"), "unknown key 'limits'; did you mean limit"),
        (("limit = 4", "limit = 'x'"), "limit must be a whole number, not 'x'"),
        (("limit = 4", "limit = true"), "limit must be a whole number, not True"),
        (('["acc>30"]', '"acc>30"'), "where must be a list of texts, not 'acc>30'"),
        (('"vanilla_acc"]', '"vanila_acc"]'), "residual: unknown target 'vanila_acc'"),
        (('"zen"', '"zenn"'), "unknown proxy 'zenn'; did you mean zen"),
        (('name = "residual"', 'name = "../up"'), "letters, digits and . + - _ alone"),
        (('name = "residual"', 'name = "cells"'), "two tables are named cells"),
        (("[[tables]]", "[[table]]"), "has no [[tables]]"),
        (("batch_size = 4", "batch_size ="), "cannot read"),
    ],
)
def test_mistakes_in_the_file(
    run: Run, study: Path, change: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_table, "score_table", pytest.fail)
    study.write_text(study.read_text().replace(*change))

    assert said in run(f"rank --study {study} --quiet").mistake()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--table x.csv", "--table goes with one table, not with a --study"),
        ("--target acc", "--target goes with one table"),
        ("--resume", "name what to resume"),
    ],
)
def test_options_of_one_table(run: Run, study: Path, options: str, said: str) -> None:
    assert said in run(f"rank --study {study} {options}").mistake()


def test_a_file_that_is_not_there(run: Run, tmp_path: Path) -> None:
    assert "cannot read" in run(f"rank --study {tmp_path}/none.toml").mistake()

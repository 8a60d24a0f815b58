"""Scores and accuracies as a file, and back."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from diswot.errors import UserError
from diswot.ranking.score_columns import ScoreColumns, read_score_columns, write_score_columns

COLUMNS = ScoreColumns(
    names=("a,b", 'c"d'),
    architectures=({"x": 1}, {"x": 2, "y": "z"}),
    accuracies={"distilled_acc": [61.5, math.nan]},
    scores={"params": [10.0, 20.0], "diswot": [-math.inf, math.nan]},
    errors={"diswot": [math.nan, 0.1]},
)


def test_it_is_written_by_columns(tmp_path: Path) -> None:
    write_score_columns(tmp_path / "scores.csv", COLUMNS)

    assert (tmp_path / "scores.csv").read_text().splitlines() == [
        "name,architecture,distilled_acc,params,diswot,diswot_se",
        '"a,b","{""x"": 1}",61.5,10.0,-inf,',
        '"c""d","{""x"": 2, ""y"": ""z""}",,20.0,,0.1',
    ]


def test_it_comes_back(tmp_path: Path) -> None:
    write_score_columns(tmp_path / "scores.csv", COLUMNS)

    back = read_score_columns(tmp_path / "scores.csv")

    assert (back.names, back.architectures) == (COLUMNS.names, COLUMNS.architectures)
    assert repr((back.accuracies, back.scores, back.errors)) == repr(
        (COLUMNS.accuracies, COLUMNS.scores, COLUMNS.errors)
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "name,params\na,1\n",
        "name,architecture,params\na,{},1,2\n",
        "name,architecture,params\na,{,1\n",
        "name,architecture,params\na,{},many\n",
        'name,architecture,params\n"a,{},1\n',
        "name,architecture,params\n",
    ],
)
def test_other_files_are_told(text: str, tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text(text)

    with pytest.raises(
        UserError, match=r"scores.csv is not a file of scores that diswot rank wrote"
    ):
        read_score_columns(tmp_path / "scores.csv")


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        read_score_columns(tmp_path / "scores.csv")

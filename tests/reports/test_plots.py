"""Data into tuples, tuples onto figures, figures into files."""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from diswot.errors import UserError
from diswot.ranking.rank import RankResult, rank
from diswot.ranking.score_columns import ScoreColumns
from diswot.reports import plots

N = 30


def held() -> ScoreColumns:
    random = np.random.default_rng(0)
    accuracy = list(random.normal(70, 2, N))
    score = [a + random.normal() for a in accuracy]
    score[:2] = [math.nan, -math.inf]
    none = [math.nan] * N
    return ScoreColumns(
        tuple(map(str, range(N))),
        ({},) * N,
        {"acc": accuracy},
        {"params": [float(i) for i in range(N)], "kd": score, "at": none},
        {},
    )


def rankings() -> RankResult:
    columns = held()
    return rank(columns.scores, columns.accuracies["acc"], columns.scores["params"], resamples=50)


def test_bars_hold_what_is_defined_best_first() -> None:
    data = plots.bar_data(rankings())

    assert list(data) == ["kd", "params"]
    assert data["kd"] == rankings()["kd"].statistics["kendall"]


def test_bars_are_drawn_as_long_as_tau() -> None:
    data = plots.bar_data(rankings())

    (axes,) = plots.bars("t", data).axes

    assert [bar.get_width() for bar in axes.patches] == [row.value for row in data.values()]
    assert axes.get_title() == "t"


def test_scatter_has_a_point_an_architecture_with_a_finite_score_baselines_last() -> None:
    data = plots.scatter_data(held(), "acc", rankings())

    assert [points.title.split()[0] for points in data.panels] == ["kd", "params"]
    assert [len(points.scores) for points in data.panels] == [N - 2, N]
    lines = [axes.lines[0].get_xydata() for axes in plots.scatter(data).axes]
    np.testing.assert_array_equal(lines[0][:, 1], data.panels[0].accuracies)


def test_saved_as_vectors_and_pixels_the_same_each_time(tmp_path: Path) -> None:
    data = plots.bar_data(rankings())
    first = plots.save(plots.bars("t", data), tmp_path / "new" / "tau")
    again = plots.save(plots.bars("t", data), tmp_path / "again")

    assert [path.suffix for path in first] == [".svg", ".png"]
    assert ElementTree.parse(first[0]).getroot().tag.endswith("svg")
    with Image.open(first[1]) as image:
        assert image.size[0] > 300
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in again]


def test_a_path_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(UserError, match="cannot write"):
        plots.save(plots.bars("t", {}), tmp_path / "file" / "tau")


FOUND = {
    "objectives": ["score", "latency", "params"],
    "front": [
        {"score": 3.0, "latency": 0.004, "model_params": 900},
        {"score": 2.0, "latency": 0.001, "model_params": 1000},
        {"score": 1.0, "latency": 0.002, "model_params": 100},
    ],
}


def test_front_has_a_panel_a_cost_and_a_number_a_student() -> None:
    data = plots.front_data(FOUND, "diswot")
    assert data.scores == [3, 2, 1]
    assert data.costs == {"latency": [0.004, 0.001, 0.002], "params": [900, 1000, 100]}

    figure = plots.front(data)

    assert [axes.get_xlabel() for axes in figure.axes] == ["latency", "params"]
    assert {axes.get_ylabel() for axes in figure.axes} == {"diswot"}
    (points,) = figure.axes[0].lines
    assert [list(map(float, xy)) for xy in points.get_xydata()] == [
        [0.001, 2],
        [0.002, 1],
        [0.004, 3],
    ]
    assert [note.get_text() for note in figure.axes[0].texts] == ["1", "2", "0"]
    assert figure.axes[0].xaxis.get_major_formatter()(0.002, None) == "2ms"

"""Scores beside accuracies: what is left out, resampled, said and refused."""

from __future__ import annotations

import json
import math
import sys
from typing import Any

import numpy as np
import pytest
from scipy import stats

import diswot
from diswot import UserError
from diswot.ranking.rank import CEILING, RankResult, rank
from diswot.ranking.statistics import STATISTICS

N = 50


def table(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    accuracy = random.normal(70, 2, N)
    return accuracy + random.normal(0, 2, N), accuracy, random.integers(1000, 9000, N) * 1.0


def test_it_is_public() -> None:
    assert diswot.rank is rank


def test_rows_hold_every_statistic_with_its_interval() -> None:
    score, accuracy, params = table()

    row = rank({"some": score}, accuracy, params)["some"]

    assert row.statistics.keys() == STATISTICS.keys()
    tau = row.statistics["kendall"]
    assert tau.value == pytest.approx(stats.kendalltau(score, accuracy).statistic)
    assert tau.low < tau.value < tau.high
    assert (row.n, row.missing, row.lowest, row.tied) == (N, 0, 0, 0)


def test_interval_covers_as_often_as_it_says() -> None:
    """The true tau of two normal variables is 2/pi asin(r)."""
    true, hits = 2 / math.pi * math.asin(0.6), 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        accuracy, noise = random.normal(size=(2, 100))
        score = 0.6 * accuracy + 0.8 * noise
        tau = rank({"s": score}, accuracy, np.ones(100), resamples=200, random=random)["s"]
        found = tau.statistics["kendall"]
        hits += found.low <= true <= found.high

    assert 180 <= hits <= 199


def test_missing_and_lowest_are_counted() -> None:
    score, accuracy, params = table()
    score[:3] = np.nan
    score[5] = -np.inf
    accuracy[4] = np.nan

    row = rank({"s": score, "other": params}, accuracy, params)["s"]

    there = np.isfinite(accuracy) & ~np.isnan(score)
    expected = stats.kendalltau(np.maximum(score[there], -1e9), accuracy[there]).statistic
    assert (row.n, row.missing, row.lowest) == (N - 4, 4, 1)
    assert row.statistics["kendall"].value == pytest.approx(expected)


def test_ties_are_a_share_of_pairs() -> None:
    score, accuracy, params = table()
    score[:5] = 0

    row = rank({"s": score}, accuracy, params, resamples=0)["s"]

    assert row.tied == pytest.approx(5 * 4 / (N * (N - 1)))


def test_score_that_is_missing_everywhere_has_no_figures() -> None:
    _, accuracy, params = table()

    row = rank({"s": np.full(N, np.nan)}, accuracy, params)["s"]

    assert (row.n, row.missing) == (0, N)
    assert all(math.isnan(found.value) for found in row.statistics.values())


def test_same_resamples_for_every_score() -> None:
    score, accuracy, params = table()

    rows = rank({"a": score, "b": 2 * score + 1}, accuracy, params)

    assert rows["a"].statistics["kendall"] == rows["b"].statistics["kendall"]


def test_same_seed_same_intervals() -> None:
    score, accuracy, params = table()

    first, again = (rank({"s": score}, accuracy, params) for _ in range(2))
    other = rank({"s": score}, accuracy, params, random=np.random.default_rng(1))

    assert first["s"].as_dict() == again["s"].as_dict()
    assert other["s"].statistics["kendall"].low != first["s"].statistics["kendall"].low


def test_without_resamples_no_interval() -> None:
    score, accuracy, params = table()

    tau = rank({"s": score}, accuracy, params, resamples=0)["s"].statistics["kendall"]

    assert tau.value == tau.value
    assert math.isnan(tau.low)
    assert math.isnan(tau.high)


def test_the_ceiling_is_a_row() -> None:
    score, accuracy, params = table()

    row = rank({"s": score}, accuracy, params, seed_deviation=0.5)[CEILING]

    tau = row.statistics["kendall"]
    assert row.statistics.keys() == {"kendall"}
    assert 0.6 < tau.low < tau.value < tau.high < 1


def test_the_ceiling_counts_the_rows_that_are_ranked() -> None:
    score, accuracy, params = table()
    params = [math.nan, *params[1:]]

    found = rank({"s": score}, accuracy, params, seed_deviation=0.5)

    assert (found[CEILING].n, found[CEILING].missing) == (found["s"].n, 1) == (N - 1, 1)


def test_as_dict_is_plain() -> None:
    score, accuracy, params = table()

    plain = rank({"s": score}, accuracy, params)["s"].as_dict()

    assert json.loads(json.dumps(plain)) == plain
    assert plain["kendall_interval"][0] < plain["kendall"] < plain["kendall_interval"][1]


def hand() -> RankResult:
    """Four architectures; of six pairs `up` orders all, `one` all but one."""
    scores = {"one": [1.0, 2, 4, 3], "up": [1.0, 2, 3, 4], "none": [math.nan] * 4}
    return rank(scores, [10.0, 20, 30, 40], np.ones(4), resamples=0)


def test_a_result_is_a_mapping_with_a_short_repr() -> None:
    found = hand()

    assert list(found) == ["one", "up", "none"] and len(found) == 3
    assert found["one"].statistics["kendall"].value == pytest.approx(4 / 6)
    assert repr(found) == "RankResult(Kendall's tau-b: up 1.000, one 0.667, none nan)"
    many = rank({f"s{i}": [1.0, 2, 3] for i in range(8)}, [1.0, 2, 3], np.ones(3), resamples=0)
    assert repr(many).endswith("s4 1.000, 3 more)")


def test_a_result_in_a_notebook_is_a_table_the_best_first() -> None:
    scores = {"<b>": [1.0, 2, 4, 3], "up": [1.0, 2, 3, 4]}
    page = rank(scores, [10.0, 20, 30, 40], np.ones(4), resamples=0)._repr_html_()

    assert "<b>" not in page and page.index("<td>up</td>") < page.index("<td>&lt;b&gt;</td>")
    assert "<td>0.667</td>" in page and page.count("<tr>") == page.count("</tr>") == 3


def test_a_result_as_a_data_frame() -> None:
    pytest.importorskip("pandas", reason="needs the extra pandas")
    score, accuracy, params = table()

    found = rank({"s": score, "other": params}, accuracy, params, seed_deviation=0.5)
    frame = found.to_dataframe()

    assert list(frame.index) == ["s", "other", CEILING] and frame.index.name == "score"
    tau = found["s"].statistics["kendall"]
    names = ["n", "kendall", "kendall_low", "kendall_high"]
    assert frame.loc["s", names].tolist() == [N, tau.value, tau.low, tau.high]
    assert math.isnan(frame.loc[CEILING, "spearman"])


def test_a_result_as_a_figure() -> None:
    """The highest tau is at the top; a score without a tau is left out."""
    scores = {"one": [1.0, 2, 4, 3], "up": [1.0, 2, 3, 4], "none": [1.0] * 4}
    (points,) = rank(scores, [10.0, 20, 30, 40], np.ones(4), resamples=0).plot().data

    assert list(points.y) == ["one", "up"] and list(points.x) == pytest.approx([4 / 6, 1])


def test_a_data_frame_without_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)

    with pytest.raises(UserError, match=r"needs pandas: pip install 'diswot\[pandas\]'"):
        hand().to_dataframe()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"scores": {"s": np.zeros(3)}}, "s has 3 values, accuracy 50"),
        ({"scores": {"s": np.full(N, np.inf)}}, "s contains plus infinity"),
        ({"scores": {"s": ["x"] * N}}, "s must be a list of numbers"),
        ({"scores": {"s": np.zeros((N, 2))}}, "not of shape"),
        ({"accuracy": np.full(N, np.nan)}, "at least 3 architectures with an accuracy, not 0"),
        ({"resamples": -1}, "resamples must be at least 0"),
        ({"seed_deviation": -1.0}, "standard deviation over seeds must be at least 0"),
    ],
)
def test_mistakes_are_told(change: dict[str, Any], said: str) -> None:
    score, accuracy, params = table()
    given = {"scores": {"s": score}, "accuracy": accuracy, "params": params, **change}

    with pytest.raises(UserError, match=said):
        rank(**given)

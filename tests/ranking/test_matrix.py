from __future__ import annotations

import math

import pytest

from diswot.errors import UserError
from diswot.ranking.matrix import Target, as_dict, summaries, target_of
from diswot.ranking.score_columns import ScoreColumns

NAN = math.nan


def sheet(accuracy: list[float], **scores: list[float]) -> ScoreColumns:
    count = len(accuracy)
    names = tuple(f"a{i}" for i in range(count))
    return ScoreColumns(names, ({},) * count, {"acc": accuracy}, scores, {})


def test_taus_of_a_table() -> None:
    """Of 4 architectures one has no accuracy; of the 3 pairs left, `mine` has one wrong."""
    found = target_of(
        "t",
        "acc",
        sheet([1, 2, 3, NAN], params=[1, 2, 3, 9], mine=[2, 1, 3, 0], part=[1, NAN, 3, 4]),
    )

    assert (found.name, found.n) == ("t acc", 3)
    assert found.taus == pytest.approx({"params": 1, "mine": 1 / 3, "part": 1})


def test_a_table_of_two_is_refused() -> None:
    with pytest.raises(UserError, match="t has 2 accuracies acc; ranking needs at least 3"):
        target_of("t", "acc", sheet([1, 2, NAN], params=[1, 2, 3]))


def test_summaries() -> None:
    """The best sizes are 0.5, 0.4 and 0.2: `mine` is 0.1 above, 0.3 behind, and equal."""
    targets = [
        Target("a", "x", 9, {"params": 0.5, "macs": 0.1, "depth": NAN, "mine": 0.6, "other": 0.1}),
        Target("a", "y", 9, {"params": 0.2, "macs": 0.4, "depth": 0.3, "mine": 0.1}),
        Target("b", "x", 9, {"params": 0.1, "macs": 0.2, "depth": -0.7, "mine": 0.2, "none": NAN}),
    ]
    found = summaries(targets)

    assert [target.best_size for target in targets] == [0.5, 0.4, 0.2]
    assert next(iter(found)) == "mine" and list(found)[-1] == "none"
    mine, other, depth = found["mine"], found["other"], found["depth"]
    assert (mine.n, mine.at_or_above, mine.worst, mine.worst_target) == (3, 2, 0.1, "a y")
    assert mine.mean == pytest.approx(0.3)
    assert (mine.shortfall, mine.shortfall_target) == (pytest.approx(0.3), "a y")
    assert (other.n, other.at_or_above, other.shortfall) == (1, 0, pytest.approx(0.4))
    assert (depth.n, depth.at_or_above, depth.worst_target) == (2, 0, "b x")
    assert depth.shortfall == pytest.approx(0.9)
    assert found["params"].at_or_above == 1 and found["macs"].at_or_above == 2
    assert found["none"].n == 0


def test_nowhere_behind() -> None:
    target = Target("a", "x", 9, {"params": 0.5, "mine": 0.6})
    found = summaries([target])["mine"]

    assert (found.shortfall, found.shortfall_target, found.at_or_above) == (0, "", 1)
    plain = as_dict([target])
    assert plain["targets"] == [{"table": "a", "target": "x", "n": 9, "best_size": 0.5}]
    assert plain["scores"]["mine"]["taus"] == [0.6]

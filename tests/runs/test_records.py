"""What a run holds, by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from diswot.errors import UserError
from diswot.runs.records import (
    RankStudyRecord,
    Run,
    SearchRecord,
    TrainingRecord,
    TrialRecord,
)

SMALL = TrialRecord(4, {"a": 1}, "scored", 2.0, None, 100, 200, extra={"latency": 0.5})
LARGE = TrialRecord(7, {"a": 2}, "scored", 3.0, None, 300)
SAME = TrialRecord(5, {"a": 3}, "scored", 3.0, None, 300)
OTHERS = (TrialRecord(1, {"a": 1}, "reused", 2.0), TrialRecord(2, {"a": 0}, "scored", None))


def test_costs_by_name() -> None:
    names = ("params", "macs", "latency", "memory")
    assert [SMALL.cost(name) for name in names] == [100, 200, 0.5, None]


def test_the_best_first() -> None:
    held = SearchRecord({}, {}, (SMALL, LARGE, SAME, *OTHERS), None, None)
    assert held.scored() == [SAME, LARGE, SMALL]


def test_costs_that_a_search_weighs() -> None:
    objectives = ["score", "latency", "params"]
    assert SearchRecord({"objectives": objectives}, {}, (), None, None).costs() == [
        "params",
        "latency",
    ]
    assert SearchRecord({"objectives": 3}, {}, (), None, None).costs() == ["params"]


def test_a_run_answers_for_what_it_holds() -> None:
    found = {"best": {"params": {"a": 1}}}
    search = SearchRecord({}, found, (SMALL, LARGE, *OTHERS), None, None)
    rows = ({"epoch": 1.0, "loss": 2.0}, {"epoch": 2.0, "loss": 1.0})
    trainings = (TrainingRecord("alone", rows[:1], {}), TrainingRecord("distilled", rows, {}))
    names, scores = ("x", "y"), {"kd": [1.0, None]}
    study = RankStudyRecord("rank", {}, {"acc": [70.0, 71.0]}, scores, names)
    run = Run(Path("runs/a"), {}, search, trainings, (study,), ())

    assert run.best is SMALL and run.students == [LARGE, SMALL] and run.history == rows
    assert list(run.to_dataframe().index) == [4, 7, 1, 2]
    elsewhere = SearchRecord({}, {"best": {"params": {"a": 9}, "trial": 9}}, (SMALL,), None, None)
    assert elsewhere.best is not None and elsewhere.best.trial == 9
    assert SearchRecord({}, {}, (SMALL, LARGE), None, None).best is LARGE

    alone = Run(Path("runs/a"), {}, None, trainings[:1], (study,), ())
    assert alone.best is None and alone.students == [] and alone.history == rows[:1]
    assert alone.to_dataframe()["loss"].tolist() == [2.0]
    ranked = Run(Path("runs/a"), {}, None, (), (study,), ()).to_dataframe()
    assert ranked["acc"].tolist() == [70.0, 71.0] and list(ranked.index) == ["x", "y"]
    with pytest.raises(UserError, match="runs/a does not record its teacher"):
        run.teacher()


def test_nothing_is_an_empty_data_frame() -> None:
    search = SearchRecord({}, {}, (), None, None)
    study = RankStudyRecord(".", {}, {"top1": []}, {"kd": []}, ())
    training = TrainingRecord(".", (), {})
    for run in (
        Run(Path("runs/a"), {}, search, (), (), ()),
        Run(Path("runs/a"), {}, None, (), (study,), ()),
        Run(Path("runs/a"), {}, None, (training,), (), ()),
    ):
        assert run.to_dataframe().empty


def test_a_line_says_what_is_held() -> None:
    search = SearchRecord({}, {"best": {}}, (SMALL, LARGE, *OTHERS), None, None)
    rows = ({"epoch": 1.0},) * 7
    trainings = (
        TrainingRecord("distilled", rows, {"test_accuracy": 71.234}),
        TrainingRecord("alone", rows[:2], {}),
        TrainingRecord("masks", rows[:1], {"test_miou": 41.5}),
    )
    study = RankStudyRecord("rank", {}, {}, {"kd": [1.0], "zen": [None]}, ("a",))

    assert repr(search) == "SearchRecord(finished, 4 trials, best score 3)"
    assert repr(SearchRecord({}, {}, (), None, None)) == "SearchRecord(unfinished, 0 trials)"
    assert list(map(repr, trainings)) == [
        "TrainingRecord('distilled', 7 epochs, accuracy 71.23 %)",
        "TrainingRecord('alone', 2 epochs, unfinished)",
        "TrainingRecord('masks', 1 epoch, mIoU 41.50 %)",
    ]
    assert repr(study) == "RankStudyRecord('rank', 2 scores of 1 architecture)"
    whole = Run(Path("runs/a"), {}, search, trainings, (study,), ())
    assert repr(whole) == f"Run('runs/a': {search!r}, 3 trainings, 1 rank study)"


def test_the_network_whose_costs_were_the_limits() -> None:
    like = {"network": "folder/mine.py:net", "params": 1234, "macs": 5e6, "latency": "fast"}

    assert SearchRecord({"like": like}, {}, (), None, None).like() == (
        "mine.py:net (1,234 params, 5M MACs)"
    )
    for other in ({}, {"like": None}, {"like": 3}, {"like": {"params": 1}}):
        assert SearchRecord(other, {}, (), None, None).like() == ""


def test_the_trials_as_a_data_frame_and_a_figure() -> None:
    trials = (
        TrialRecord(0, {"width": 8}, "scored", 1.5, None, 100, extra={"latency": 0.002}),
        TrialRecord(1, {"width": 16}, "rejected"),
        TrialRecord(2, {"width": 4}, "scored", 2.5, None, 50),
    )
    search = SearchRecord({}, {}, trials, None, None)
    frame = search.to_dataframe()
    assert list(frame.index) == [0, 1, 2] and list(frame["params_width"]) == [8, 16, 4]
    assert frame["latency"][0] == 0.002 and math.isnan(frame["score"][1])
    (points,) = search.plot().data
    assert (list(points.x), list(points.y)) == ([50, 100], [2.5, 1.5])
    assert list(points.text) == ["trial 2", "trial 0"]

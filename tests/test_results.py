"""Results of the public functions: in a line, in a notebook, as a data frame and as a figure."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from diswot.models.inheritance import Inheritance, InheritedLayer
from diswot.nas.result import SearchResult, Student
from diswot.ranking.rank import rank
from diswot.runs import compared
from diswot.runs.records import RankStudyRecord, Run, SearchRecord, TrainingRecord, TrialRecord
from diswot.training.distill import Distilled
from diswot.training.verified import ShortTraining, Verified

pytest.importorskip("pandas", reason="needs the extra pandas")

HISTORY = ({"epoch": 1, "loss": 2.5, "test_accuracy": 40.0},)
STUDENT = Student({"kind": "<b>"}, 1.5, None, 100, 200, 300, None, (), 4)
SHORT = ShortTraining(STUDENT, 40.0, None, (40.0,), 1, {"lr": 0.1}, 4)
SEARCH = SearchRecord({}, {}, (TrialRecord(4, {"kind": "<b>"}, "scored", 1.5, None, 100),), None, 1)
TRAINING = TrainingRecord("<b>", HISTORY, {})
STUDY = RankStudyRecord(
    "a", {"rows": {"<b>": {"kendall": 0.5}, "none": {}}}, {"top1": [70.0]}, {"<b>": [1.0]}, ("x",)
)
TESTED = compared.TestedStudent("distilled", "digits", 1, "test accuracy", 40.0, 1)

RESULTS = [
    SearchResult(STUDENT, (STUDENT,), ("score",), (), 1, 1, 0, 0, 0, 0),
    Distilled(nn.Identity(), HISTORY, 1.0),
    rank({"<b>": [1.0, 2, 3]}, [1, 2, 3], np.ones(3), resamples=0),
    Inheritance((InheritedLayer("<b>", "stem", 16, 0.5),), "norm"),
    compared.RunComparison((compared.ComparedRun("<b>", None, None, None, accuracies=(TESTED,)),)),
    SEARCH,
    TRAINING,
    STUDY,
    Run(Path("a"), {}, SEARCH, (TRAINING,), (STUDY,), ()),
    Run(Path("a"), {}, None, (TRAINING,), (STUDY,), ()),
    Run(Path("a"), {}, None, (), (STUDY,), ()),
    Verified(SHORT, (SHORT,), (), 0, 20, "accuracy"),
]
NO_FIGURE = (Inheritance,)


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: type(result).__name__)
def test_a_result_is_frozen_and_shown(result: Any) -> None:
    text, page = repr(result), result._repr_html_()

    with pytest.raises(FrozenInstanceError):
        setattr(result, fields(result)[0].name, None)
    assert text.startswith(type(result).__name__) and len(text) < 120 and "\n" not in text
    assert "<table" in page and "<b>" not in page
    assert len(result.to_dataframe()) == 1
    if not isinstance(result, NO_FIGURE):
        (points,) = result.plot().data
        assert len(points.x) == len(points.y) == 1

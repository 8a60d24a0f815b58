"""Charts of reports, against values by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from diswot.errors import UserError
from diswot.reports import charts
from diswot.reports.networks import FeatureComparison
from diswot.runs.records import RankStudyRecord, SearchRecord, TrainingRecord, TrialRecord
from diswot.runs.verification import verification


def candidate(
    trial: int, score: float | None, params: float | None, outcome: str = "scored"
) -> TrialRecord:
    return TrialRecord(trial, {"width": trial}, outcome, score, None, params)


CANDIDATES = (
    candidate(0, 1.0, 100),
    candidate(1, 3.0, 200),
    candidate(2, 2.0, 150),
    candidate(3, 2.5, 300),
    candidate(4, None, None, "rejected"),
    candidate(5, 3.0, 250),
    candidate(6, 1.0, 100, "reused"),
)
SEARCH = SearchRecord({}, {}, CANDIDATES, None, None)


def test_pareto_front_by_hand() -> None:
    assert [c.trial for c in charts.pareto_candidates(SEARCH.scored())] == [0, 2, 1]


def test_pareto_front_is_what_nothing_dominates() -> None:
    some = [candidate(i, math.sin(7 * i), 100 + 37 * i % 101) for i in range(60)]
    front = {c.trial for c in charts.pareto_candidates(some)}
    for one in some:
        better = [
            o for o in some
            if o.score >= one.score and o.model_params <= one.model_params  # type: ignore[operator]
            and (o.score, o.model_params) != (one.score, one.model_params)
        ]  # fmt: skip
        assert (one.trial in front) == (not better)


def test_trials_and_the_best_so_far() -> None:
    scored, again, best = charts.score_by_trial(SEARCH)["data"]
    assert list(scored["x"]) == [0, 1, 2, 3, 5] and list(again["x"]) == [6]
    assert list(best["x"]) == [0, 1, 2, 3, 5, 6] and list(best["y"]) == [1, 3, 3, 3, 3, 3]


def test_sizes_mark_the_student() -> None:
    points, front, star = charts.score_by_cost(SEARCH, CANDIDATES[1])["data"]
    assert sorted(points["x"]) == [100, 150, 200, 250, 300]
    assert list(front["x"]) == [100, 150, 200] and list(front["y"]) == [1, 2, 3]
    assert (list(star["x"]), list(star["y"])) == ([200], [3.0])


def test_importance_of_the_choice_that_matters() -> None:
    study = optuna.create_study(direction="maximize")
    space = {name: optuna.distributions.CategoricalDistribution((0, 1, 2)) for name in "ab"}
    for i in range(30):
        params = {"a": i % 3, "b": i // 3 % 3}
        score = 10.0 * params["a"] + 0.1 * params["b"]
        study.add_trial(
            create_trial(params=params, distributions=space, value=score,
                         user_attrs={"end": {"score": score}})
        )  # fmt: skip
    chart = charts.importance(SearchRecord({}, {}, CANDIDATES, study, None))
    shares = dict(zip(chart["data"][0]["y"], chart["data"][0]["x"], strict=True))
    assert shares["a"] > 0.9 > 0.1 > shares["b"]


@pytest.mark.parametrize("states", [[], [TrialState.COMPLETE], [TrialState.FAIL] * 3])
def test_importance_where_it_is_not_defined(states: list[TrialState]) -> None:
    study = optuna.create_study(direction="maximize")
    space = {"a": optuna.distributions.IntDistribution(0, 3)}
    for state in states:
        value = 1.0 if state == TrialState.COMPLETE else None
        study.add_trial(
            create_trial(state=state, params={"a": 1}, distributions=space, value=value)
        )
    with pytest.raises(UserError, match="needs 4 scored"):
        charts.importance(SearchRecord({}, {}, CANDIDATES[:3], study, None))


def test_relation_leaves_the_diagonal_out_of_the_scale() -> None:
    features = FeatureComparison(
        "k", "t", [[9.0, 0.1], [0.2, 9.0]], [[9.0, 0.4], [0.3, 9.0]], ["a", "b"], []
    )
    (heat,) = charts.relation_heatmap(features, features.teacher, "teacher")["data"]
    assert (heat["zmin"], heat["zmax"]) == (0.1, 0.4) and heat["z"] == features.teacher


def test_curves_a_line_a_training() -> None:
    rows = ({"epoch": 1, "loss": 2.0, "test_accuracy": 50.0}, {"epoch": 2, "loss": 1.0})
    chart = charts.loss_by_epoch(
        [TrainingRecord("<a>", rows, {}), TrainingRecord("b", rows[:1], {})]
    )
    assert [list(line["y"]) for line in chart["data"]] == [[2.0, 1.0], [2.0]]
    assert chart["data"][0]["name"] == "&lt;a&gt;"
    assert list(
        charts.result_by_epoch([TrainingRecord("a", rows, {})], "test accuracy")["data"][0]["y"]
    ) == [50.0]


def test_short_trainings_are_compared_at_equal_epochs() -> None:
    rows = [
        {"accuracy": 60.0, "accuracies": [40.0, 50.0, 60.0], "interval": [55.0, 64.0], "trial": 0},
        {"accuracy": 45.0, "accuracies": [45.0], "interval": [40.0, 50.0], "trial": 1},
    ]
    students: list[dict[str, object]] = [{"score": 2.0, "params": {"a": "<b>"}}, {"score": 3.0}]
    given = [
        {**row, "student": student, "epochs": len(row["accuracies"])}  # type: ignore[arg-type]
        for row, student in zip(rows, students, strict=True)
    ]
    tried = verification({"verified": {"trained": given}})
    assert tried is not None

    third, first = charts.accuracy_by_score(tried)["data"]

    assert (third["name"], first["name"]) == ("after 3 epochs", "after 1 epoch")
    assert (list(third["x"]), list(third["y"])) == ([2.0], [60.0])
    assert (list(first["x"]), list(first["y"])) == ([2.0, 3.0], [40.0, 45.0])
    assert (third["error_y"]["array"], third["error_y"]["arrayminus"]) == ([4.0], [5.0])
    assert "error_y" not in first
    assert list(third["text"]) == ["a=&lt;b&gt;<br>winner"]
    assert first["text"][1].endswith("<br>stopped after 1 epoch")


def test_taus_with_their_intervals() -> None:
    rows = {
        "mine": {"kendall": 0.5, "kendall_interval": [0.25, 0.875]},
        "params": {"kendall": 0.25, "kendall_interval": [None, None]},
        "none": {"kendall": None},
    }
    study = RankStudyRecord("s", {"target": "acc", "n": 3, "rows": rows}, {}, {}, ())
    (bars,) = charts.tau_bars(study)["data"]
    assert list(bars["y"]) == ["params", "mine"] and list(bars["x"]) == [0.25, 0.5]
    assert list(bars["error_x"]["array"]) == [None, 0.375]
    assert list(bars["error_x"]["arrayminus"]) == [None, 0.25]


def test_text_is_no_markup() -> None:
    assert charts.escaped('<a href="x">&') == '&lt;a href="x"&gt;&amp;'


@pytest.mark.parametrize(
    ("cost", "limit", "xs", "drawn", "name"),
    [
        ("params", 280.0, [100, 150, 200, 250, 300], 280, "limit 280"),
        ("latency", 0.008, [1, 2, 3, 4, 6], 8, "limit 8ms"),
    ],
)
def test_the_limit_of_the_budget_is_a_line(
    cost: str, limit: float, xs: list[float], drawn: float, name: str
) -> None:
    timed = tuple(replace(c, extra={"latency": 0.001 * (c.trial + 1)}) for c in CANDIDATES)
    config = {"budget": {f"max_{cost}": limit, "max_memory": None}}
    search = SearchRecord(config, {}, timed, None, None)
    points, *_, line = charts.score_by_cost(search, None, cost)["data"]
    assert sorted(points["x"]) == pytest.approx(xs)
    assert list(line["x"]) == [drawn, drawn] and list(line["y"]) == [1.0, 3.0]
    assert line["name"] == name and line["line"]["dash"] == "dash"
    assert search.costs() == list(dict.fromkeys(["params", cost]))


def test_names_show_what_differs_from_the_winner() -> None:
    winner = {"depth": 3, "width": 8, "kernel": 5}
    assert charts.differing({"depth": 3, "width": 4, "kernel": 5}, winner) == "width=4"
    assert charts.differing(winner, winner) == "depth=3 width=8 kernel=5"
    assert charts.differing({"depth": 3, "heads": 2}, winner) == "heads=2"
    (points, *_) = charts.score_by_trial(SEARCH, CANDIDATES[1])["data"]
    assert points["text"][0].startswith("trial 0<br>width=0<br>")


def test_brief() -> None:
    assert charts.brief({f"p{i}": i for i in range(10)}, 2) == "p0=0 p1=1 and 8 more"

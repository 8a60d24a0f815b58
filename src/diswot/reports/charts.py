"""Plotly figures of a report; the page sets the colours of text and grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from itertools import accumulate, cycle
from typing import Any

import optuna
import plotly.graph_objects as go

from diswot.costs.budget import COSTS
from diswot.errors import UserError
from diswot.ranking.rank import REFERENCE_ROWS
from diswot.reports.formats import epochs
from diswot.reports.networks import FeatureComparison
from diswot.runs.compared import Condition, RunComparison
from diswot.runs.records import RankStudyRecord, SearchRecord, TrainingRecord, TrialRecord
from diswot.runs.verification import Verification, VerifiedRow
from diswot.tasks.registry import find_result
from diswot.utils.pareto import pareto_front
from diswot.utils.units import show_params
from diswot.utils.untrusted import mapping, number

BLUE, ORANGE, GREY, GREEN = "#3b82c4", "#e07b39", "#8b95a1", "#2a9d74"
COLOURS = (BLUE, ORANGE, GREEN, "#b05fb8", "#c9a227", "#d1495b", "#5c6bc0", GREY)
MIN_SCORED = 4  # scored candidates that the importance of parameters needs
MAX_POINTS = 4000  # points in a chart; more are subsampled evenly
BLUE_SCALE = [[0.0, "#10243a"], [0.5, "#3b82c4"], [1.0, "#f4e9c9"]]

UNITS = {"macs": "MACs", "latency": "latency, milliseconds per image", "memory": "memory, bytes"}

Chart = dict[str, Any]


def escaped(text: object) -> str:
    """Escape text, so that Plotly does not read it as markup."""
    return escape(str(text), quote=False)


def brief(params: Mapping[str, Any], most: int = 8) -> str:
    """Format up to `most` parameters as one line, and count the others."""
    more = f" and {len(params) - most} more" if len(params) > most else ""
    return show_params(dict([*params.items()][:most])) + more


def differing(params: Mapping[str, Any], winner: Mapping[str, Any], most: int = 8) -> str:
    """Format the parameters that differ from those of the winner; all of them for the winner."""
    other = {name: value for name, value in params.items() if winner.get(name) != value}
    return brief(other or params, most)


def pareto_candidates(candidates: Sequence[TrialRecord], cost: str = "params") -> list[TrialRecord]:
    """Return the candidates on the Pareto front of score and cost, by rising cost."""
    known = [(c.cost(cost), c.score, c) for c in candidates]
    points = sorted(
        ((x, -y, c.trial, c) for x, y, c in known if x is not None and y is not None),
        key=lambda point: point[:3],
    )
    front = pareto_front([point[:2] for point in points])
    return [points[place][3] for place in front]


def score_by_trial(search: SearchRecord, winner: TrialRecord | None = None) -> Chart:
    """Draw the score of each trial, and the best score so far."""
    with_score = [c for c in search.trials if c.score is not None]
    scored = _subsampled([c for c in with_score if c.outcome == "scored"])
    reused = _subsampled([c for c in with_score if c.outcome == "reused"])
    best = list(accumulate((c.score or 0.0 for c in with_score), max))
    figure = go.Figure()
    figure.add_scatter(**_points(scored, [c.trial for c in scored], "scored", BLUE, winner))
    if reused:
        trials = [c.trial for c in reused]
        figure.add_scatter(**_points(reused, trials, "score reused", GREY, winner))
    figure.add_scatter(
        x=[c.trial for c in with_score], y=best, mode="lines", name="best so far",
        line={"color": ORANGE, "width": 2, "shape": "hv"}, hoverinfo="skip",
    )  # fmt: skip
    figure.update_layout(xaxis_title="trial", yaxis_title="score")
    return _finished(figure)


def score_by_cost(search: SearchRecord, best: TrialRecord | None, cost: str = "params") -> Chart:
    """Draw the score against a cost, with their Pareto front and the limit of the budget."""
    scale = 1000.0 if cost == "latency" else 1.0
    scored = [c for c in search.scored() if c.cost(cost) is not None]
    front = pareto_candidates(scored, cost)
    shown = _subsampled(scored)
    figure = go.Figure()
    counts = [scale * (c.cost(cost) or 0.0) for c in shown]
    figure.add_scatter(**_points(shown, counts, "candidate", BLUE, best))
    figure.add_scatter(
        x=[scale * (c.cost(cost) or 0.0) for c in front], y=[c.score for c in front],
        mode="lines+markers",
        name="Pareto front", line={"color": ORANGE, "width": 2, "shape": "hv"},
        marker={"size": 7}, text=[_hover_text(c, best) for c in front], hoverinfo="text",
    )  # fmt: skip
    if best is not None and (own := best.cost(cost)) is not None:
        figure.add_scatter(
            x=[scale * own], y=[best.score], mode="markers", name="the student",
            marker={"symbol": "star", "size": 16, "color": GREEN}, text=[_hover_text(best, best)],
            hoverinfo="text",
        )  # fmt: skip
    limit = number(mapping(search.config.get("budget")).get(f"max_{cost}"))
    if limit is not None and scored:
        scores = [c.score or 0.0 for c in scored]
        figure.add_scatter(
            x=[scale * limit] * 2, y=[min(scores), max(scores)], mode="lines",
            name=f"limit {COSTS[cost].show(limit)}", line={"color": GREY, "dash": "dash"},
            hoverinfo="name",
        )  # fmt: skip
    kind = "log" if counts and max(counts) > 8 * min(counts) > 0 else "linear"
    figure.update_layout(xaxis_title=UNITS.get(cost, cost), yaxis_title="score", xaxis_type=kind)
    return _finished(figure)


def accuracy_by_score(tried: Verification) -> Chart:
    """Draw the accuracy after a short distillation against the score, for equal epochs each."""
    figure = go.Figure()
    colours = (GREEN, *(colour for colour in COLOURS if colour != GREEN))
    for end, colour in zip(reversed(tried.epochs), cycle(colours), strict=False):
        rows = [row for row in tried.rows if end in row.by_epoch]
        last = end == tried.epochs[-1]
        figure.add_scatter(
            x=[number(row.student.get("score")) for row in rows],
            y=[row.by_epoch[end] for row in rows],
            error_y=_error_bars(rows) if last else None,
            mode="markers", marker={"size": 10 if last else 7, "color": colour},
            hoverinfo="text", name=f"after {epochs(end)}",
            text=[
                f"{escaped(differing(row.params, tried.rows[0].params))}<br>{row.outcome}"
                for row in rows
            ],
        )  # fmt: skip
    figure.update_layout(xaxis_title="score", yaxis_title=f"{tried.measure} on held-out images, %")
    return _finished(figure)


def _error_bars(rows: Sequence[VerifiedRow]) -> dict[str, Any]:
    """Return the 95 % intervals of the last accuracies."""
    bounds = [row.interval or (row.accuracy, row.accuracy) for row in rows]
    up = [high - row.accuracy for row, (_, high) in zip(rows, bounds, strict=True)]
    down = [row.accuracy - low for row, (low, _) in zip(rows, bounds, strict=True)]
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1}


def importance(search: SearchRecord) -> Chart:
    """Draw the importance of each parameter for the score: fANOVA (Hutter et al., ICML 2014).

    Raises:
        UserError: Too few candidates have a score, no parameter is in all trials, or no parameter
            changes the score.
    """
    study = search.study
    if study is None:
        raise UserError("the trials cannot be read")
    if len(search.scored()) < MIN_SCORED:
        raise UserError(f"fANOVA needs {MIN_SCORED} scored candidates")
    try:
        found = optuna.importance.get_param_importances(
            study,
            evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0),
            target=lambda trial: float(trial.user_attrs.get("end", {}).get("score", math.nan)),
        )
    except (ValueError, RuntimeError, ZeroDivisionError) as error:
        raise UserError(str(error)) from error
    if not found or not all(map(math.isfinite, found.values())):
        raise UserError("no parameter is in all trials, or none changes the score")
    rows = sorted(found.items(), key=lambda item: item[1])[-25:]
    names, values = [name for name, _ in rows], [float(value) for _, value in rows]
    height = 80 + 28 * len(rows)
    return _bars(names, values, "share of the score's variance", height, marker_color=BLUE)


def _bars(
    names: Sequence[str], values: Sequence[float], title: str, height: int, **style: Any
) -> Chart:
    """Draw a horizontal bar for each name."""
    figure = go.Figure()
    figure.add_bar(
        x=values, y=[escaped(name) for name in names], orientation="h",
        hovertemplate="%{y}: %{x:.3f}<extra></extra>", **style,
    )  # fmt: skip
    figure.update_layout(xaxis_title=title, height=height)
    figure.update_yaxes(type="category", automargin=True)
    return _finished(figure)


def relation_heatmap(features: FeatureComparison, matrix: list[list[float]], who: str) -> Chart:
    """Draw a relation matrix, B x B, as a heat map; both networks share the colour scale."""
    names = [f"{escaped(label)} ({i})" for i, label in enumerate(features.labels)]
    values = _off_diagonal(features.teacher) + _off_diagonal(features.student)
    figure = go.Figure()
    figure.add_heatmap(
        z=matrix, zmin=min(values), zmax=max(values), colorscale=BLUE_SCALE, text=names,
        customdata=names, hovertemplate="%{x}, %{y}: %{z:.3f}<extra>" + escaped(who) + "</extra>",
        colorbar={"thickness": 10, "len": 0.9},
    )  # fmt: skip
    figure.update_xaxes(showticklabels=False, showgrid=False, ticks="", constrain="domain")
    figure.update_yaxes(
        showticklabels=False, showgrid=False, ticks="", autorange="reversed", scaleanchor="x"
    )
    figure.update_layout(height=340, margin={"l": 12, "r": 12, "t": 8, "b": 12})
    return _finished(figure)


def _off_diagonal(matrix: list[list[float]]) -> list[float]:
    """Return the relations of different samples; the diagonal would dominate the colour scale."""
    return [v for i, row in enumerate(matrix) for j, v in enumerate(row) if i != j]


def result_by_epoch(trainings: Sequence[TrainingRecord], measure: str) -> Chart:
    """Draw the test result by epoch, one line per training."""

    def percent(row: Mapping[str, float]) -> float | None:
        found = find_result(row)
        return found.percent if found else None

    return _curves(trainings, percent, f"{measure}, %")


def loss_by_epoch(trainings: Sequence[TrainingRecord]) -> Chart:
    """Draw the training loss by epoch, one line per training."""
    return _curves(trainings, lambda row: row.get("loss"), "training loss")


def _curves(
    trainings: Sequence[TrainingRecord],
    value: Callable[[Mapping[str, float]], float | None],
    title: str,
) -> Chart:
    figure = go.Figure()
    for place, training in enumerate(trainings):
        read = [(row["epoch"], value(row)) for row in training.history if "epoch" in row]
        points = [(epoch, y) for epoch, y in read if y is not None]
        figure.add_scatter(
            x=[epoch for epoch, _ in points], y=[y for _, y in points],
            mode="lines+markers" if len(points) < 40 else "lines", name=escaped(training.name),
            line={"color": COLOURS[place % len(COLOURS)]}, marker={"size": 5},
            hovertemplate="epoch %{x}: %{y:.4g}<extra>%{fullData.name}</extra>",
        )  # fmt: skip
    figure.update_layout(xaxis_title="epoch", yaxis_title=title, showlegend=True)
    figure.update_layout(height=330 + 21 * len(trainings))
    chart = _finished(figure)
    chart["layout"]["legend"] |= {"y": -0.2, "yanchor": "top"}
    return chart


def tau_bars(study: RankStudyRecord) -> Chart:
    """Draw Kendall's tau of each score, with its 95 % interval."""
    known = [(n, row) for n, row in study.result["rows"].items() if isinstance(row, dict)]
    rows = {n: row for n, row in reversed(known) if row.get("kendall") is not None}
    low, high = ([_bound(row, end) for row in rows.values()] for end in (0, 1))
    return _bars(
        [*rows], [row["kendall"] for row in rows.values()],
        "Kendall's tau-b, 95 % interval", 90 + 24 * len(rows),
        marker_color=[GREY if name in REFERENCE_ROWS else BLUE for name in rows],
        error_x={"type": "data", "symmetric": False, "array": high, "arrayminus": low,
                 "color": ORANGE, "thickness": 1.5, "width": 3},
    )  # fmt: skip


def accuracy_scatter(study: RankStudyRecord, score: str) -> Chart:
    """Draw the accuracy against one score, one point per architecture."""
    target = str(study.result.get("target"))
    figure = go.Figure()
    figure.add_scatter(
        x=study.scores[score], y=study.accuracies[target], mode="markers",
        text=[escaped(name) for name in study.names],
        marker={"size": 6, "opacity": 0.7, "color": GREY if score in REFERENCE_ROWS else BLUE},
        hovertemplate="%{text}<br>%{x:.4g}, %{y:.2f} %<extra></extra>",
    )  # fmt: skip
    figure.update_layout(xaxis_title=escaped(score), yaxis_title=f"{escaped(target)}, %")
    return _finished(figure)


def accuracy_by_params(comparison: RunComparison, condition: Condition) -> Chart:
    """Draw the accuracies that can be compared, of several runs, against the parameters."""
    figure = go.Figure()
    for curve, colour in zip(comparison.curves(condition), COLOURS, strict=False):
        figure.add_scatter(
            x=curve.xs, y=curve.ys, mode="markers+text", name=curve.name,
            marker={"size": 9, "color": colour}, text=[escaped(text) for text in curve.texts],
            textposition="top center", cliponaxis=False,
            hovertemplate="%{text}: %{x:.4s} params, %{y:.2f} %<extra>%{fullData.name}</extra>",
        )  # fmt: skip
    figure.update_layout(
        xaxis_title="params", yaxis_title=f"{condition.measure}, %", showlegend=True
    )
    return _finished(figure)


def _bound(row: Mapping[str, Any], end: int) -> float | None:
    """Return the distance from tau to the lower (0) or upper (1) end of its interval."""
    bounds = row.get("kendall_interval")
    if not isinstance(bounds, list) or len(bounds) != 2 or bounds[end] is None:
        return None
    return abs(float(bounds[end]) - float(row["kendall"]))


def _points(
    shown: Sequence[TrialRecord],
    x: Sequence[Any],
    name: str,
    colour: str,
    winner: TrialRecord | None,
) -> dict[str, Any]:
    return {
        "x": x,
        "y": [c.score for c in shown],
        "mode": "markers",
        "name": name,
        "marker": {"color": colour, "size": 7, "opacity": 0.75},
        "text": [_hover_text(c, winner) for c in shown],
        "hoverinfo": "text",
    }


def _hover_text(candidate: TrialRecord, winner: TrialRecord | None = None) -> str:
    """Describe a candidate for the hover box of its point, by what differs from the winner."""
    name = differing(candidate.params, winner.params if winner else {})
    params = "" if candidate.model_params is None else f"<br>{candidate.model_params:,.0f} params"
    score = "" if candidate.score is None else f"<br>score {candidate.score:.5g}"
    return f"trial {candidate.trial}<br>{escaped(name)}{score}{params}"


def _subsampled(candidates: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return every k-th candidate, so that at most `MAX_POINTS` are left."""
    step = max(1, math.ceil(len(candidates) / MAX_POINTS))
    return list(candidates[::step])


def _finished(figure: go.Figure) -> Chart:
    """Set the common layout and return data and layout as plain values for JSON."""
    figure.update_layout(template="none", paper_bgcolor="rgba(0,0,0,0)")
    figure.update_layout(plot_bgcolor="rgba(0,0,0,0)", autosize=True)
    figure.update_layout(legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0})
    if figure.layout.margin.l is None:
        figure.update_layout(
            margin={"l": 60, "r": 16, "t": 36 if len(figure.data) > 1 else 8, "b": 48}
        )
    for axes in (figure.update_xaxes, figure.update_yaxes):
        axes(automargin=True, zeroline=False, title_font_size=13)
    chart: Chart = figure.to_plotly_json()
    return {"data": chart["data"], "layout": chart["layout"]}

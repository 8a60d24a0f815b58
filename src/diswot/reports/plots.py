"""Plots of a rank study and of a Pareto front, in two steps: values first, then a figure.

No plot is shown on screen; `save` writes a figure as SVG and PNG.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from diswot.costs.budget import COSTS
from diswot.ranking.rank import REFERENCE_ROWS, Interval, Ranking
from diswot.ranking.score_columns import ScoreColumns
from diswot.utils import files
from diswot.utils.user_code import short_name

GREY, BLUE, DARK = "#9a9a9a", "#2f6db3", "#333333"


class ScorePoints(NamedTuple):
    """One score and the accuracy of each architecture, with the title of the panel."""

    title: str
    scores: list[float]
    accuracies: list[float]
    reference: bool


class AccuracyScatter(NamedTuple):
    """Points of each score against one accuracy."""

    target: str
    panels: list[ScorePoints]


class FrontPoints(NamedTuple):
    """Students on a Pareto front: score and value of each cost."""

    score: str
    scores: list[float]
    costs: dict[str, list[float]]


def front_data(found: Mapping[str, Any], score: str) -> FrontPoints:
    """Return the points of a search's front."""
    students = found["front"]
    names = [name for name in found["objectives"] if name != "score"]
    keys = {name: "model_params" if name == "params" else name for name in names}
    costs = {name: [float(row[keys[name]]) for row in students] for name in names}
    return FrontPoints(score, [float(row["score"]) for row in students], costs)


def bar_data(rankings: Mapping[str, Ranking]) -> dict[str, Interval]:
    """Return tau of every score that has one, the highest first."""
    found = {name: row.statistics["kendall"] for name, row in rankings.items()}
    known = {name: tau for name, tau in found.items() if not math.isnan(tau.value)}
    return dict(sorted(known.items(), key=lambda item: -item[1].value))


def scatter_data(
    columns: ScoreColumns, target: str, rows: Mapping[str, Ranking]
) -> AccuracyScatter:
    """Return the points of every score with finite values, reference scores last."""
    accuracies = columns.accuracies[target]
    panels = []
    for name, values in columns.scores.items():
        pairs = [
            (s, a) for s, a in zip(values, accuracies, strict=True) if math.isfinite(s) and a == a
        ]
        tau = rows[name].tau if name in rows else math.nan
        if pairs:
            scores, known = (list(column) for column in zip(*pairs, strict=True))
            title = f"{short_name(name)} (tau {tau:.2f})"
            panels.append(ScorePoints(title, scores, known, name in REFERENCE_ROWS))
    return AccuracyScatter(target, sorted(panels, key=lambda points: points.reference))


def bars(title: str, rows: Mapping[str, Interval]) -> Figure:
    """Draw tau as bars with intervals; reference scores are grey."""
    figure, (axes,) = panels(1, (4.2, 0.9 + 0.2 * max(1, len(rows))), 1)
    values = [row.value for row in rows.values()]
    spread = np.array([[r.value - r.low, r.high - r.value] for r in rows.values()]).T
    colours = [GREY if name in REFERENCE_ROWS else BLUE for name in rows]
    known = np.nan_to_num(np.maximum(spread, 0)) if rows else None
    axes.barh(range(len(rows)), values, xerr=known, color=colours, ecolor=DARK)
    axes.set_yticks(range(len(rows)), list(map(short_name, rows)))
    axes.invert_yaxis()
    axes.axvline(0, color=DARK, linewidth=0.8)
    axes.set_title(title, fontsize=9)
    axes.set_xlabel("Kendall tau-b, 95 % interval", fontsize=8)
    axes.tick_params(labelsize=7)
    return figure


def scatter(data: AccuracyScatter) -> Figure:
    """Draw the accuracy against each score; reference scores are grey."""
    figure, axes_list = panels(len(data.panels), (2.6, 2.2), 4)
    for axes, points in zip(axes_list, data.panels, strict=True):
        colour = GREY if points.reference else BLUE
        axes.plot(points.scores, points.accuracies, ".", color=colour, markersize=4)
        if min(points.scores) > 0 and max(points.scores) > 50 * min(points.scores):
            axes.set_xscale("log")
        axes.set_title(points.title, fontsize=8)
        axes.set_ylabel(f"{data.target}, %", fontsize=7)
        axes.tick_params(labelsize=6)
    return figure


def front(data: FrontPoints) -> Figure:
    """Draw the score against each cost, a panel per cost; numbers are the table's rows."""
    figure, axes_list = panels(len(data.costs), (3.8, 3.2), 3)
    for axes, (name, values) in zip(axes_list, data.costs.items(), strict=True):
        order = sorted(range(len(values)), key=lambda place: values[place])
        xs, ys = ([column[i] for i in order] for column in (values, data.scores))
        if len(data.costs) == 1:
            axes.plot(xs, ys, drawstyle="steps-post", color=GREY, linewidth=0.8)
        axes.plot(xs, ys, ".", color=BLUE)
        for place, x, y in zip(order, xs, ys, strict=True):
            note = partial(axes.annotate, xytext=(3, 3), textcoords="offset points", fontsize=6)
            note(str(place), (x, y))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _, name=name: COSTS[name].show(x)))
        axes.set_xlabel(name, fontsize=8)
        axes.set_ylabel(data.score, fontsize=8)
        axes.tick_params(labelsize=7)
    return figure


def save(figure: Figure, path: Path) -> list[Path]:
    """Write `path`.svg and `path`.png, and return their paths.

    The same figure gives the same bytes.
    """
    written = [path.with_name(f"{path.name}.{kind}") for kind in ("svg", "png")]
    options: dict[str, dict[str, Any]] = {"svg": {"metadata": {"Date": None}}, "png": {"dpi": 150}}
    figure.draw_without_rendering()  # lays the panels out, once for both files
    figure.set_layout_engine(None)
    with matplotlib.rc_context({"svg.hashsalt": "diswot"}):
        for place in written:
            kind = place.suffix[1:]
            write = partial(figure.savefig, format=kind, **options[kind])
            files.write(place, write)
    return written


def panels(count: int, size: tuple[float, float], columns: int) -> tuple[Figure, Sequence[Axes]]:
    """Create a figure with panels."""
    columns = max(1, min(count, columns))
    lines = max(1, -(-count // columns))
    figure = Figure(figsize=(size[0] * columns, size[1] * lines), layout="constrained")
    drawn = np.atleast_1d(figure.subplots(lines, columns)).ravel()
    for spare in drawn[count:]:
        spare.remove()
    return figure, list(drawn[:count])

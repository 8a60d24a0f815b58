"""Plots of a rank study and of a front, in two steps: data into a named tuple, that onto a figure.

No plot is shown: a figure is saved, as vectors and as pixels.
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
from diswot.ranking.rank import Interval, Ranking
from diswot.ranking.score_sheet import Sheet
from diswot.utils import files

BASELINES = ("params", "macs", "depth", "vanilla", "ceiling")
_GREY, _BLUE, _DARK = "#9a9a9a", "#2f6db3", "#333333"


class Bars(NamedTuple):
    """Tau of scores, a panel a table; by panel, by score."""

    panels: dict[str, dict[str, Interval]]


class Cloud(NamedTuple):
    """One score against accuracy: points, and what the title says."""

    title: str
    scores: list[float]
    accuracies: list[float]
    baseline: bool


class Scatter(NamedTuple):
    """Clouds over one accuracy."""

    target: str
    clouds: list[Cloud]


class Line(NamedTuple):
    """Mean and standard deviation of tau over seeds, at each setting."""

    label: str
    settings: list[float]
    means: list[float]
    deviations: list[float]


class Curves(NamedTuple):
    """Lines over one setting each, a panel a setting; `levels` are drawn across, by label."""

    panels: dict[str, list[Line]]
    levels: dict[str, float]


class Grid(NamedTuple):
    """Numbers of each row's with each column's, N x N."""

    title: str
    labels: list[str]
    values: list[list[float]]


class Front(NamedTuple):
    """Students that none is better than in all objectives: scores, and each cost's values."""

    score: str
    scores: list[float]
    costs: dict[str, list[float]]


def front_data(found: Mapping[str, Any], score: str) -> Front:
    """The front of a search, from its result as plain values; the score's name is told."""
    students = found["front"]
    names = [name for name in found["objectives"] if name != "score"]
    keys = {name: "model_params" if name == "params" else name for name in names}
    costs = {name: [float(row[keys[name]]) for row in students] for name in names}
    return Front(score, [float(row["score"]) for row in students], costs)


def bar_data(tables: Mapping[str, Mapping[str, Ranking]], statistic: str = "kendall") -> Bars:
    """One statistic of every score that has it, best first, for each table."""
    panels = {}
    for name, rows in tables.items():
        found = {key: row.statistics[statistic] for key, row in rows.items()}
        there = {key: value for key, value in found.items() if not math.isnan(value.value)}
        panels[name] = dict(sorted(there.items(), key=lambda item: -item[1].value))
    return Bars(panels)


def scatter_data(sheet: Sheet, target: str, rows: Mapping[str, Ranking]) -> Scatter:
    """Every score that has finite values, baselines last."""
    accuracies = sheet.accuracies[target]
    clouds = []
    for name, values in sheet.scores.items():
        pairs = [
            (s, a) for s, a in zip(values, accuracies, strict=True) if math.isfinite(s) and a == a
        ]
        tau = rows[name].statistics["kendall"].value if name in rows else math.nan
        if pairs:
            scores, held = (list(column) for column in zip(*pairs, strict=True))
            title = f"{name} (tau {tau:.2f})"
            clouds.append(Cloud(title, scores, held, name in BASELINES))
    return Scatter(target, sorted(clouds, key=lambda cloud: cloud.baseline))


def bars(data: Bars) -> Figure:
    """Draw tau as bars with their intervals; baselines in grey."""
    count = max(map(len, data.panels.values()), default=1)
    figure, panels = _panels(len(data.panels), (4.2, 0.9 + 0.2 * count), len(data.panels))
    for axes, (title, rows) in zip(panels, data.panels.items(), strict=True):
        values = [row.value for row in rows.values()]
        spread = np.array([[r.value - r.low, r.high - r.value] for r in rows.values()]).T
        colours = [_GREY if name in BASELINES else _BLUE for name in rows]
        known = np.nan_to_num(np.maximum(spread, 0)) if rows else None
        axes.barh(list(rows), values, xerr=known, color=colours, ecolor=_DARK)
        axes.invert_yaxis()
        axes.axvline(0, color=_DARK, linewidth=0.8)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("Kendall tau-b, 95 % interval", fontsize=8)
        axes.tick_params(labelsize=7)
    return figure


def scatter(data: Scatter) -> Figure:
    """Draw each score against the accuracy; baselines in grey."""
    figure, panels = _panels(len(data.clouds), (2.6, 2.2), 4)
    for axes, cloud in zip(panels, data.clouds, strict=True):
        colour = _GREY if cloud.baseline else _BLUE
        axes.plot(cloud.scores, cloud.accuracies, ".", color=colour, markersize=4)
        if min(cloud.scores) > 0 and max(cloud.scores) > 50 * min(cloud.scores):
            axes.set_xscale("log")
        axes.set_title(cloud.title, fontsize=8)
        axes.set_ylabel(f"{data.target}, %", fontsize=7)
        axes.tick_params(labelsize=6)
    return figure


def curves(data: Curves) -> Figure:
    """Draw how tau changes with a setting; bars are standard deviations over seeds."""
    figure, panels = _panels(len(data.panels), (3.6, 3.0), 3)
    for axes, (setting, lines) in zip(panels, data.panels.items(), strict=True):
        for line in lines:
            draw = partial(axes.errorbar, marker=".", capsize=2, label=line.label)
            draw(line.settings, line.means, yerr=line.deviations)
        for label, level in data.levels.items():
            axes.axhline(level, color=_GREY, linestyle="--", linewidth=0.8)
            axes.annotate(label, (1, level), xycoords=("axes fraction", "data"), fontsize=6)
        axes.set_xscale("log", base=2)
        axes.set_xlabel(setting, fontsize=8)
        axes.set_ylabel("Kendall tau-b", fontsize=8)
        axes.legend(fontsize=6)
        axes.tick_params(labelsize=7)
    return figure


def front(data: Front) -> Figure:
    """Draw the score over each cost, a panel a cost; students are numbered as in the table."""
    figure, panels = _panels(len(data.costs), (3.8, 3.2), 3)
    for axes, (name, values) in zip(panels, data.costs.items(), strict=True):
        order = sorted(range(len(values)), key=lambda place: values[place])
        xs, ys = ([column[i] for i in order] for column in (values, data.scores))
        if len(data.costs) == 1:
            axes.plot(xs, ys, drawstyle="steps-post", color=_GREY, linewidth=0.8)
        axes.plot(xs, ys, ".", color=_BLUE)
        for place, x, y in zip(order, xs, ys, strict=True):
            note = partial(axes.annotate, xytext=(3, 3), textcoords="offset points", fontsize=6)
            note(str(place), (x, y))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _, name=name: COSTS[name].show(x)))
        axes.set_xlabel(name, fontsize=8)
        axes.set_ylabel(data.score, fontsize=8)
        axes.tick_params(labelsize=7)
    return figure


def grid(data: Grid) -> Figure:
    """Draw a square of numbers."""
    side = 1.6 + 0.75 * len(data.labels)
    figure, (axes,) = _panels(1, (side, side), 1)
    axes.imshow(data.values, vmin=-1, vmax=1, cmap="RdBu")
    places = range(len(data.labels))
    axes.set_xticks(places, data.labels, rotation=30, ha="right", fontsize=7)
    axes.set_yticks(places, data.labels, fontsize=7)
    for row, values in enumerate(data.values):
        for column, value in enumerate(values):
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7)
    axes.set_title(data.title, fontsize=9)
    return figure


def save(figure: Figure, path: Path) -> list[Path]:
    """Write `path`.svg and `path`.png; the same figure gives the same bytes."""
    written = [path.with_name(f"{path.name}.{kind}") for kind in ("svg", "png")]
    options: dict[str, dict[str, Any]] = {"svg": {"metadata": {"Date": None}}, "png": {"dpi": 150}}
    with matplotlib.rc_context({"svg.hashsalt": "diswot"}):
        for place in written:
            kind = place.suffix[1:]
            write = partial(figure.savefig, format=kind, **options[kind])
            files.write(place, write)
    return written


def _panels(count: int, size: tuple[float, float], columns: int) -> tuple[Figure, Sequence[Axes]]:
    """A figure of so many panels of a size in inches, in rows of at most `columns`."""
    columns = max(1, min(count, columns))
    lines = max(1, -(-count // columns))
    figure = Figure(figsize=(size[0] * columns, size[1] * lines), layout="constrained")
    drawn = np.atleast_1d(figure.subplots(lines, columns)).ravel()
    for spare in drawn[count:]:
        spare.remove()
    return figure, list(drawn[:count])

"""The plots of the study's page."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from statistics import fmean, stdev
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from pages import DOCS, plain_tau
from study import PUBLISHED, S0, TEACHERS
from study_data import FOLDERS, KINDS, TARGETS, Rankings, Study, shown, tau, taught_by

from diswot.cli.rank_scores import BASELINES
from diswot.ranking.rank import Ranking
from diswot.ranking.score_columns import ScoreColumns
from diswot.reports import plots


class Line(NamedTuple):
    """Mean and standard deviation of tau over seeds, at each setting."""

    label: str
    settings: list[float]
    means: list[float]
    deviations: list[float]


class Curves(NamedTuple):
    """Lines over one setting each, a panel per setting; `levels` are horizontal lines, by label."""

    panels: dict[str, list[Line]]
    levels: dict[str, float]


class Grid(NamedTuple):
    """A number for each pair of labels, N x N."""

    title: str
    labels: list[str]
    values: list[list[float]]


def draw(study: Study, rankings: Rankings) -> None:
    folder = DOCS / "study"
    main = {
        f"{FOLDERS[t]}: {g}": rankings[t, "images", g] for t in study.tables for g in TARGETS[t]
    }
    plots.save(plots.bars(plots.bar_data(main)), folder / "tau")
    for table in study.tables:
        target = TARGETS[table][0]
        rows = rankings[table, "images", target]
        held = leading(study.of(table, "images"), rows)
        plots.save(plots.scatter(plots.scatter_data(held, target, rows)), folder / FOLDERS[table])
    if S0[0] in study.tables:
        plots.save(curves(curve_data(study, rankings)), folder / "depends")
        plots.save(grid(grid_data(study)), folder / "teachers")


def leading(held: ScoreColumns, rows: dict[str, Ranking], count: int = 8) -> ScoreColumns:
    """The scores of highest tau, the published one, the default one and the sizes."""
    best = sorted(held.scores, key=lambda name: -np.nan_to_num(tau(rows, name), nan=-2))[:count]
    shown = {*best, "diswot", "default", *BASELINES}
    return replace(held, scores={n: v for n, v in held.scores.items() if n in shown})


def curve_data(study: Study, rankings: Rankings) -> Curves:
    def line(proxy: str, kind: str, points: dict[float, list[float]]) -> Line:
        means = [fmean(values) for values in points.values()]
        deviations = [stdev(values) for values in points.values()]
        return Line(f"{proxy}, {kind}", list(points), means, deviations)

    batches: list[Line] = []
    repeats: list[Line] = []
    classes: list[Line] = []
    for proxy in PUBLISHED:
        for kind in KINDS:
            at = {64: f"s0/shared/{kind}"}
            at |= {size: f"batch/{size}/{kind}" for size in (16, 32, 128, 256)}
            batches.append(line(proxy, kind, {k: study.taus(at[k], proxy) for k in sorted(at)}))
            groups = {g: study.taus(f"repeats/16/{kind}", proxy, g) for g in (1, 2, 4, 8)}
            repeats.append(line(proxy, kind, groups))
        of = {100: "s0/shared/noise"}
        of |= {count: f"classes/{count}/noise" for count in (10, 20, 50, 200)}
        classes.append(line(proxy, "noise", {k: study.taus(of[k], proxy) for k in sorted(of)}))
    rows = rankings[S0[0], "images", "distilled_acc"]
    levels = {name: tau(rows, name) for name in ("params", "macs")}
    panels = {"images in the batch": batches, "repeats averaged": repeats, "classes": classes}
    return Curves(panels, levels)


def grid_data(study: Study) -> Grid:
    held = study.tables[S0[0]]
    columns, labels = [], []
    for name in TEACHERS:
        found = study.kept[taught_by(name, "images")]
        column = np.array([found[row.name].mean("diswot") for row in held.rows])
        columns.append(column)
        labels.append(f"{name}, best {shown(held.rows[int(column.argmax())])}")
    values = [[plain_tau(a, b) for b in columns] for a in columns]
    return Grid("tau between diswot scores by teacher (S0, images)", labels, values)


def curves(data: Curves) -> Figure:
    """Draw tau against each setting; bars are standard deviations over seeds."""
    figure, panels = plots.panels(len(data.panels), (3.6, 3.0), 3)
    for axes, (setting, lines) in zip(panels, data.panels.items(), strict=True):
        for line in lines:
            draw = partial(axes.errorbar, marker=".", capsize=2, label=line.label)
            draw(line.settings, line.means, yerr=line.deviations)
        for label, level in data.levels.items():
            axes.axhline(level, color=plots.GREY, linestyle="--", linewidth=0.8)
            axes.annotate(label, (1, level), xycoords=("axes fraction", "data"), fontsize=6)
        axes.set_xscale("log", base=2)
        axes.set_xlabel(setting, fontsize=8)
        axes.set_ylabel("Kendall tau-b", fontsize=8)
        axes.legend(fontsize=6)
        axes.tick_params(labelsize=7)
    return figure


def grid(data: Grid) -> Figure:
    """Draw a square of numbers as a heat map."""
    side = 1.6 + 0.75 * len(data.labels)
    figure, (axes,) = plots.panels(1, (side, side), 1)
    axes.imshow(data.values, vmin=-1, vmax=1, cmap="RdBu")
    places = range(len(data.labels))
    axes.set_xticks(places, data.labels, rotation=30, ha="right", fontsize=7)
    axes.set_yticks(places, data.labels, fontsize=7)
    for row, values in enumerate(data.values):
        for column, value in enumerate(values):
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7)
    axes.set_title(data.title, fontsize=9)
    return figure

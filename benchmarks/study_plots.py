"""The plots of the study's page."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean, stdev

import numpy as np
from pages import DOCS, plain_tau
from study import PUBLISHED, S0, TEACHERS
from study_data import FOLDERS, KINDS, TARGETS, Rankings, Study, shown, tau, taught_by

from diswot.cli.rank_scores import BASELINES
from diswot.ranking.rank import Ranking
from diswot.ranking.score_sheet import Sheet
from diswot.reports import plots


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
        plots.save(plots.curves(curve_data(study, rankings)), folder / "depends")
        plots.save(plots.grid(grid_data(study)), folder / "teachers")


def leading(held: Sheet, rows: dict[str, Ranking], count: int = 8) -> Sheet:
    """The scores of highest tau, the published one, the default one and the sizes."""
    best = sorted(held.scores, key=lambda name: -np.nan_to_num(tau(rows, name), nan=-2))[:count]
    shown = {*best, "diswot", "default", *BASELINES}
    return replace(held, scores={n: v for n, v in held.scores.items() if n in shown})


def curve_data(study: Study, rankings: Rankings) -> plots.Curves:
    def line(proxy: str, kind: str, points: dict[float, list[float]]) -> plots.Line:
        means = [fmean(values) for values in points.values()]
        deviations = [stdev(values) for values in points.values()]
        return plots.Line(f"{proxy}, {kind}", list(points), means, deviations)

    batches: list[plots.Line] = []
    repeats: list[plots.Line] = []
    classes: list[plots.Line] = []
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
    return plots.Curves(panels, levels)


def grid_data(study: Study) -> plots.Grid:
    held = study.tables[S0[0]]
    columns, labels = [], []
    for name in TEACHERS:
        found = study.kept[taught_by(name, "images")]
        column = np.array([found[row.name].mean("diswot") for row in held.rows])
        columns.append(column)
        labels.append(f"{name}, best {shown(held.rows[int(column.argmax())])}")
    values = [[plain_tau(a, b) for b in columns] for a in columns]
    return plots.Grid("tau between diswot scores by teacher (S0, images)", labels, values)

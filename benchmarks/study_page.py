"""Writes docs/study.md from the scores that `study.py` kept: tables, plots and what follows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
from study import NB101, NB201, OUT, PUBLISHED, S0, SEED, TEACHERS, VIT, Job, scores, table_of

from diswot import files, plots
from diswot.cli.rank import BASELINES, VANILLA
from diswot.facts import hardware, versions
from diswot.rank import Ranking, rank
from diswot.rank.scoring import Scores, read_kept
from diswot.rank.sheet import Sheet, sheet
from diswot.rank.statistics import Array, kendall, midranks
from diswot.tables import Table, vanilla

DOCS = Path("docs")
KINDS = ("noise", "images")
TARGETS = {
    S0[0]: ("distilled_acc", "vanilla_acc"),
    NB201[0]: ("cifar10_test", "cifar100_test", "imagenet16_120_test"),
    NB101[0]: ("cifar10_valid_108",),
    VIT[0]: ("c100_kd_acc", "flower_kd_acc", "chaoyang_kd_acc", "c100_base_acc"),
}
TITLES = {
    S0[0]: "S0: CIFAR ResNets, CIFAR-100",
    NB201[0]: "NAS-Bench-201",
    NB101[0]: "NAS-Bench-101, CIFAR-10",
    VIT[0]: "AutoFormer vision transformers",
}
FOLDERS = {S0[0]: "s0", NB201[0]: "nasbench201", NB101[0]: "nasbench101", VIT[0]: "autoformer"}
SIZES = ("params", "macs", "depth")
AZ_NAS = ("expressivity", "progressivity", "trainability", "complexity")
DEFAULT = Path("runs/default")


class Study:
    """The finished jobs, and the tables they are of."""

    def __init__(self, jobs: Sequence[Job], folder: Path) -> None:
        self.jobs = {job.name: job for job in jobs}
        self.tables: dict[str, Table] = {}
        for job in jobs:
            if job.table not in self.tables and job.name.split("/")[1] == "shared":
                self.tables[job.table] = table_of(job, folder)
        self.kept = {name: scores(job) for name, job in self.jobs.items()}
        self.default = {name: default_scores(FOLDERS[name]) for name in self.tables}

    def of(self, table: str, kind: str) -> Sheet:
        """All scores of a table on noise or on images."""
        folder, held = FOLDERS[table], self.tables[table]
        merged: dict[str, Scores] = {row.name: Scores() for row in held.rows}
        for part in ("slow", "costly", "shared"):
            job = self.jobs.get(f"{folder}/{part}/{kind}")
            for name, found in self.kept[job.name].items() if job else ():
                merged[name] = merged[name] | only(found, (*job.proxies, *BASELINES))
        for name in merged if kind == "images" else ():
            merged[name] = self.default[table].get(name, Scores()) | merged[name]
        proxies = dict.fromkeys(p for found in merged.values() for p in found.values)
        order = [name for name in proxies if name not in SIZES]
        return sheet(held, merged, [*order, *SIZES])

    def taus(self, job: str, proxy: str, group: int = 1) -> list[float]:
        """Tau with the distilled accuracy of S0, of each `group` of repeats averaged."""
        held, found = self.tables[S0[0]], self.kept[job]
        accuracy = np.array([row.accuracies["distilled_acc"] for row in held.rows])
        values = np.array([found[row.name].values[proxy] for row in held.rows])
        count = values.shape[1] // group
        means = values[:, : count * group].reshape(len(values), count, group).mean(2)
        once = np.ones((1, len(values)))
        return [float(kendall(means[:, i], accuracy, once)[0]) for i in range(count)]


def default_scores(folder: str) -> dict[str, Scores]:
    """What `default.py` kept of a table, on images."""
    return read_kept(DEFAULT / folder / "scores.jsonl")


def only(found: Scores, proxies: Iterable[str]) -> Scores:
    """The scores of some proxies."""
    values = {name: found.values[name] for name in proxies if name in found.values}
    return Scores(values, found.reasons, found.seconds)


def az_nas(columns: Mapping[str, Array]) -> Array:
    """The four parts of AZ-NAS as the paper combines them: the sum of the logarithms of the ranks.

    NaN where one is missing; minus infinity ranks lowest.
    """
    parts = [np.asarray(columns[part]) for part in AZ_NAS]
    there = ~np.isnan(parts).any(0)
    once = np.ones((1, int(there.sum())))
    total = np.full(len(there), np.nan)
    total[there] = sum(np.log(midranks(part[there], once)[0] / there.sum()) for part in parts)
    return total


def write(jobs: Sequence[Job], folder: Path) -> None:
    """Write the page and its plots."""
    study = Study(jobs, folder)
    rankings = {
        (table, kind, target): ranked(study.of(table, kind), target)
        for table in study.tables
        for kind in KINDS
        for target in TARGETS[table]
    }
    draw(study, rankings)
    parts = [
        head(study),
        short(study, rankings),
        *(table_section(study, rankings, table) for table in study.tables),
        published(study, rankings),
        depends(study),
        teachers(study),
        vanilla_section(study, rankings),
        foot(study),
    ]
    text = "\n\n".join(part.strip() for part in parts if part) + "\n"
    files.write(DOCS / "study.md", lambda temporary: Path(temporary).write_text(text))
    print(f"written: {DOCS / 'study.md'}")


Rankings = dict[tuple[str, str, str], dict[str, Ranking]]


def ranked(held: Sheet, target: str) -> dict[str, Ranking]:
    alone = vanilla(target, held.accuracies)
    columns = {**held.scores, **({VANILLA: held.accuracies[alone]} if alone else {})}
    random = np.random.default_rng(SEED)
    return rank(columns, held.accuracies[target], held.scores["params"], random=random)


def tau(rows: dict[str, Ranking], name: str, statistic: str = "kendall") -> float:
    return rows[name].statistics[statistic].value if name in rows else math.nan


def best(rows: dict[str, Ranking], names: Iterable[str], statistic: str = "kendall") -> str:
    known = [name for name in names if not math.isnan(tau(rows, name, statistic))]
    return max(known, key=lambda name: tau(rows, name, statistic))


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [" | ".join(columns), "|".join(["---", *["---:"] * (len(columns) - 1)])]
    return "\n".join(f"| {line} |" for line in [*lines, *(" | ".join(row) for row in rows)])


def number(value: float, digits: int = 2) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def spread(values: Sequence[float]) -> str:
    return f"{fmean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else number(values[0])


def cell(rows: dict[str, Ranking], name: str, statistic: str = "kendall") -> str:
    if name not in rows or math.isnan(tau(rows, name, statistic)):
        return "-"
    found = rows[name].statistics[statistic]
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"


def head(study: Study) -> str:
    counts = ", ".join(f"{len(t.rows)} of {TITLES[name]}" for name, t in study.tables.items())
    return f"""
# Does a score predict the accuracy of a student?

`make study` wrote this page. Architectures: {counts}. Each was scored without training, and the
scores are compared with accuracies that others measured by training it. Kendall's tau-b is the
share of pairs put in the right order less the share put in the wrong one: 1 is perfect, 0 is
chance. In brackets: the middle 95 % of 1,000 bootstrap resamples of the architectures. *Given
params* is the partial tau at fixed parameter count; *in deciles* is the mean tau within tenths of
the table of about equal parameter count; *lost* is the accuracy, in points, that the table's best
student within a budget has over the pick of the score, averaged over ten budgets in parameters;
*left out* counts the networks that a score cannot tell, or has the same number for.
**Noise** scores on normal noise, **images** on training images of CIFAR-100, also where the
accuracy is of another data set. The teacher is a freshly initialised ResNet-110, weights are
Gaussian, a batch has 64 images (transformers 32; NAS-Bench-101 16), unless it says otherwise.
`semantic`, and with it `diswot`, compares classifiers of one width: on NAS-Bench-101 the teacher is
therefore a network of that space (20.4 million parameters), and transformers, which have three
widths, have no such score.
Scores that share a forward pass are means over several batches and initialisations (S0 5,
NAS-Bench-201 and transformers 2, NAS-Bench-101 1); those that need more passes have one, and
smaller batches (S0 64, NAS-Bench-201 32, transformers 16, NAS-Bench-101 8), on images only. The
slowest, `vkdnw`, `ntk_cond` and `grasp`, have been left out of NAS-Bench-101, the first two of
transformers, and have scored 100 of NAS-Bench-201, so that the study takes about an hour.
The default score, its parts and those of AZ-NAS have Kaiming weights, which belong to them, a
ResNet-110 as the teacher everywhere, and images only; [default.md](default.md) says more."""


def short(study: Study, rankings: Rankings) -> str:
    """What follows from the figures, counted, not written by hand."""
    lines = ["## In short", ""]
    cases = [(t, "images", g) for t in study.tables for g in TARGETS[t] if g != "vanilla_acc"]
    cases = [case for case in cases if not case[2].endswith("_base_acc")]
    won = [c for c in cases if tau(rankings[c], "diswot") > tau(rankings[c], "params")]
    lines.append(
        f"- `diswot`, the published score, ranks better than parameter count on {len(won)} of "
        f"{len(cases)} accuracies (images)" + (": " + listed(won) if won else "") + "."
    )
    for case in cases:
        rows = rankings[case]
        free = [name for name in rows if name not in BASELINES and name != VANILLA]
        top, inside = best(rows, free), best(rows, free, "kendall_within_deciles")
        size = best(rows, SIZES)
        lines.append(
            f"- {TITLES[case[0]]}, `{case[2]}`: best score `{top}` {tau(rows, top):.2f}, best size "
            f"`{size}` {tau(rows, size):.2f}, `diswot` {number(tau(rows, 'diswot'))}; among "
            f"networks of about equal size `{inside}` "
            f"{tau(rows, inside, 'kendall_within_deciles'):.2f}."
        )
    names = [n for n in rankings[cases[0]] if n != VANILLA]
    worst = {n: min(tau(rankings[c], n) for c in cases) for n in names}
    mean = {n: fmean(tau(rankings[c], n) for c in cases) for n in names}
    known = [n for n in names if not math.isnan(mean[n])]
    by_mean = sorted(known, key=lambda n: -mean[n])[:6]
    said = ", ".join(f"`{n}` {mean[n]:.2f} (worst {worst[n]:.2f})" for n in by_mean)
    lines.append(f"- Over all these accuracies, the highest mean tau: {said}.")
    lines.append("")
    lines.append("![tau per score and accuracy](study/tau.svg)")
    return "\n".join(lines)


def listed(cases: Iterable[tuple[str, str, str]]) -> str:
    return ", ".join(f"`{target}`" for _, _, target in cases)


def table_section(study: Study, rankings: Rankings, table: str) -> str:
    parts = [f"## {TITLES[table]}", f"n = {len(study.tables[table].rows)}."]
    for target in TARGETS[table]:
        noise, images = (rankings[table, kind, target] for kind in KINDS)
        order = sorted(images, key=lambda name: -np.nan_to_num(tau(images, name), nan=-2))
        lines = [
            [
                f"**{name}**" if name in (*SIZES, VANILLA) else name,
                cell(images, name),
                cell(noise, name),
                cell(images, name, "kendall_given_params"),
                cell(images, name, "kendall_within_deciles"),
                number(tau(images, name, "precision_top10")),
                number(tau(images, name, "regret")),
                left_out(images[name]),
            ]
            for name in order
        ]
        columns = [
            "score",
            "tau, images",
            "tau, noise",
            "given params",
            "in deciles",
            "in top 10 %",
        ]
        parts += [f"### `{target}`", markdown([*columns, "lost", "left out"], lines)]
    parts.append(f"![scores against accuracy](study/{FOLDERS[table]}.svg)")
    return "\n\n".join(parts)


def left_out(row: Ranking) -> str:
    said = [
        f"{row.missing} without" if row.missing else "",
        f"{row.lowest} lowest" * (row.lowest > 0),
    ]
    tied = f"{row.tied:.0%} tied" if row.tied >= 0.01 else ""
    return ", ".join(text for text in (*said, tied) if text)


def published(study: Study, rankings: Rankings) -> str:
    if S0[0] not in study.tables:
        return ""
    rows = rankings[S0[0], "images", "distilled_acc"]
    lines = [
        [
            "Similarity of semantics and of relations at initialisation has good correlation with "
            "distilled accuracy (abstract)",
            "S0, images: "
            + ", ".join(f"{name} {tau(rows, name):.2f}" for name in PUBLISHED)
            + f"; params {tau(rows, 'params'):.2f}, MACs {tau(rows, 'macs'):.2f}",
        ],
        [
            "The optimal model under vanilla training cannot be the winner in distillation "
            "(abstract)",
            winners(study),
        ],
    ]
    if NB201[0] in study.tables:
        found = rankings[NB201[0], "images", "cifar10_test"]
        lines.append(
            [
                "AZ-NAS, its four parts combined: tau 0.712 on NAS-Bench-201 CIFAR-10 "
                "(Lee and Ham, CVPR 2024)",
                f"combined {number(combined(study, NB201[0], 'cifar10_test'))}; each part alone: "
                + ", ".join(f"{p} {number(tau(found, p))}" for p in AZ_NAS),
            ]
        )
    return "## What papers say, and what is measured here\n\n" + markdown(
        ["published", "measured"], lines
    )


def combined(study: Study, table: str, target: str) -> float:
    """Tau of AZ-NAS on images."""
    held = study.of(table, "images")
    score, accuracy = az_nas(held.scores), np.array(held.accuracies[target])
    there = ~np.isnan(score) & ~np.isnan(accuracy)
    return float(kendall(score[there], accuracy[there], np.ones((1, there.sum())))[0])


def winners(study: Study) -> str:
    rows = study.tables[S0[0]].rows
    alone, taught = (
        max(rows, key=lambda r: r.accuracies[c]) for c in ("vanilla_acc", "distilled_acc")
    )
    place = sum(r.accuracies["distilled_acc"] > alone.accuracies["distilled_acc"] for r in rows) + 1
    lost = taught.accuracies["distilled_acc"] - alone.accuracies["distilled_acc"]
    return (
        f"S0: the best of {len(rows)} alone is number {place} when distilled, "
        f"{lost:.2f} points below the best"
    )


def depends(study: Study) -> str:
    if S0[0] not in study.tables:
        return ""

    def line(name: str, job: Callable[[str], str]) -> list[str]:
        cells = []
        for proxy in PUBLISHED:
            for kind in KINDS:
                there = job(kind) in study.kept
                cells.append(spread(study.taus(job(kind), proxy)) if there else "-")
        return [name, *cells]

    columns = [f"{proxy}, {kind}" for proxy in PUBLISHED for kind in KINDS]
    rows = [line("gaussian, 64 images", lambda kind: f"s0/shared/{kind}")]
    for init in ("kaiming", "default"):
        rows.append(line(f"{init}, 64 images", lambda kind, i=init: f"init/{i}/{kind}"))
    for size in (16, 32, 128, 256):
        rows.append(line(f"gaussian, {size} images", lambda kind, s=size: f"batch/{s}/{kind}"))
    for classes in (10, 20, 50, 200):
        rows.append(
            line(
                f"gaussian, {classes} classes",
                lambda kind, c=classes: f"classes/{c}/{kind}",
            )
        )
    repeats = [
        [
            f"mean of {group}",
            *(
                spread(study.taus(f"repeats/16/{kind}", proxy, group))
                for proxy in PUBLISHED
                for kind in KINDS
            ),
        ]
        for group in (1, 2, 4, 8)
    ]
    return "\n\n".join(
        [
            "## What the published score depends on",
            "S0, tau with the distilled accuracy: mean ± standard deviation over 5 seeds of batch "
            "and weights, one batch each.",
            markdown(["setting", *columns], rows),
            "How tau grows when scores are averaged over repeats (16 repeats in groups; the "
            "deviation is between groups):",
            markdown(["scores", *columns], repeats),
            "![tau by batch size, repeats and classes](study/depends.svg)",
        ]
    )


def taught_by(teacher: str, kind: str) -> str:
    """The job of S0 scored with that teacher."""
    return f"s0/shared/{kind}" if teacher == TEACHERS[-1] else f"teacher/{teacher}/{kind}"


def teachers(study: Study) -> str:
    if S0[0] not in study.tables:
        return ""
    held = study.tables[S0[0]]
    lines = []
    for kind in KINDS:
        for name in TEACHERS:
            found = study.kept[taught_by(name, kind)]
            pick = max(held.rows, key=lambda row: found[row.name].mean("diswot"))
            small = [r for r in held.rows if found[r.name].mean("params") <= 4e5]
            within = max(small, key=lambda row: found[row.name].mean("diswot"))
            taus = [spread(study.taus(taught_by(name, kind), proxy)) for proxy in PUBLISHED]
            chosen = [f"{shown(r)}: {r.accuracies['distilled_acc']:.2f} %" for r in (pick, within)]
            lines.append([f"{name}, {kind}", *taus, *chosen])
    columns = ["teacher", *PUBLISHED, "pick (blocks: distilled from ResNet-110)", "within 0.4 M"]
    return "\n\n".join(
        [
            "## Teacher against teacher",
            "S0, mean of 5 seeds. The accuracies are of students of a ResNet-110 whatever the "
            "teacher scored with; that the pick changes with the teacher is seen, "
            "that it should is not.",
            markdown(columns, lines),
            "![agreement between teachers](study/teachers.svg)",
        ]
    )


def shown(row: object) -> str:
    return "-".join(str(value) for value in row.params.values())  # type: ignore[attr-defined]


def vanilla_section(study: Study, rankings: Rankings) -> str:
    lines = []
    for table, held in study.tables.items():
        for target in TARGETS[table]:
            alone = vanilla(target, dict.fromkeys(held.targets))
            if not alone:
                continue
            rows = rankings[table, "images", target]
            other = ranked(study.of(table, "images"), alone)
            free = [n for n in rows if n not in BASELINES and n != VANILLA]
            tops = [best(r, free) for r in (rows, other)]
            lines.append(
                [
                    f"{TITLES[table]}, `{target}`",
                    number(tau(rows, VANILLA)),
                    f"`{tops[0]}` {tau(rows, tops[0]):.2f}",
                    f"`{tops[1]}` {tau(other, tops[1]):.2f}",
                    f"{tau(rows, 'params'):.2f}, {tau(other, 'params'):.2f}",
                    f"{number(tau(rows, 'diswot'))}, {number(tau(other, 'diswot'))}",
                ]
            )
    columns = [
        "table",
        "tau of vanilla with distilled",
        "best score, distilled",
        "best score, vanilla",
        "params: distilled, vanilla",
        "diswot: distilled, vanilla",
    ]
    return "## Alone or distilled\n\n" + markdown(columns, lines) if lines else ""


def foot(study: Study) -> str:
    seconds = sum(found.seconds for kept in study.kept.values() for found in kept.values())
    facts = ", ".join(f"{k} {v}" for k, v in {**hardware(), **versions()}.items())
    medians = []
    for table, held in study.tables.items():
        for part in ("shared", "costly"):
            kept = study.kept.get(f"{FOLDERS[table]}/{part}/images")
            if kept:
                times = sorted(kept[row.name].seconds for row in held.rows)
                medians.append(f"{FOLDERS[table]} {part} {times[len(times) // 2]:.2f} s")
    return f"""
## How this was made

`make study TABLES=DIR`, seed {SEED}. {len(study.kept)} jobs, {seconds / 3600:.2f} processor hours
of scoring in all. Median time to score an architecture with all repeats, one thread:
{", ".join(medians)}.

{facts}.

Not covered: the accuracies of a table come from one training recipe each, on one data set, and
those of NAS-Bench tables are of networks trained alone; intervals are over architectures and know
nothing of training seeds."""


def draw(study: Study, rankings: Rankings) -> None:
    folder = DOCS / "study"
    main = {
        f"{FOLDERS[t]}: {g}": rankings[t, "images", g] for t in study.tables for g in TARGETS[t]
    }
    plots.save(plots.bars(plots.bar_data(main)), folder / "tau")
    for table in study.tables:
        target = TARGETS[table][0]
        data = plots.scatter_data(
            study.of(table, "images"), target, rankings[table, "images", target]
        )
        plots.save(plots.scatter(data), folder / FOLDERS[table])
    if S0[0] in study.tables:
        plots.save(plots.curves(curve_data(study, rankings)), folder / "depends")
        plots.save(plots.grid(grid_data(study)), folder / "teachers")


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
    once = np.ones((1, len(held.rows)))
    values = [[float(kendall(a, b, once)[0]) for b in columns] for a in columns]
    return plots.Grid("tau between diswot scores by teacher (S0, images)", labels, values)


__all__ = ["OUT", "write"]

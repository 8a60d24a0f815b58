"""Writes docs/study.md from the scores that `study.py` and `default.py` kept.

python benchmarks/study_page.py --tables DIR
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import fmean

import default
import numpy as np
from pages import AZ_NAS, DOCS, az_nas, markdown, number, plain_tau, spread
from study import NB201, PUBLISHED, S0, SEED, TEACHERS, Job, jobs, there, unpacked
from study_data import (
    FOLDERS,
    KINDS,
    TARGETS,
    TITLES,
    Rankings,
    Study,
    best,
    ranked,
    shown,
    tau,
    taught_by,
)
from study_plots import draw

from diswot.cli.rank_scores import BASELINES, VANILLA
from diswot.ranking.rank import Ranking
from diswot.ranking.tables.read import vanilla_column
from diswot.utils import files
from diswot.utils.environment import hardware, versions


def write(finished: Sequence[Job], folder: Path) -> None:
    """Write the page and its plots."""
    study = Study(finished, folder)
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
        ablations(folder),
        foot(study),
    ]
    text = "\n\n".join(part.strip() for part in parts if part) + "\n"
    files.write(DOCS / "study.md", lambda temporary: Path(temporary).write_text(text))
    print(f"written: {DOCS / 'study.md'}")


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
slowest, `vkdnw`, `ntk_cond` and `grasp`, have been left out of NAS-Bench-101 and of transformers,
and have scored 100 of NAS-Bench-201, so that the study takes about an hour.
The default score, its parts and those of AZ-NAS have Kaiming weights, which belong to them, a
ResNet-110 as the teacher everywhere, and images only; [default.md](default.md) says more.

What a found student then learns, alone, beside a hand-designed one of its size, and from each of
seven distillers, was measured on images of CIFAR-100:
[what it gives](distillation.md#what-it-gives)."""


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
        size = best(rows, BASELINES)
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
                f"**{name}**" if name in (*BASELINES, VANILLA) else name,
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
    parts = {**held.scores, AZ_NAS[3]: held.scores["macs"]}
    if not set(AZ_NAS) <= parts.keys():
        return math.nan
    return plain_tau(az_nas(parts), np.array(held.accuracies[target]))


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


def vanilla_section(study: Study, rankings: Rankings) -> str:
    lines = []
    for table, held in study.tables.items():
        for target in TARGETS[table]:
            alone = vanilla_column(target, dict.fromkeys(held.targets))
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


def ablations(folder: Path) -> str:
    """Tau of the default score, and of it without each of its parts, in the mean over targets."""
    columns, taus = ["score"], list[list[str]]()
    names = ["default", *(f"default without {part}" for part in default.PARTS)]
    for name, case in default.CASES.items():
        if not (folder / case.table).is_file():
            continue
        held = default.scored(name, folder)
        scores = default.variants(held.scores)
        accuracies = [np.array(held.accuracies[target]) for target in case.targets]
        taus.append([number(fmean(plain_tau(scores[n], a) for a in accuracies), 3) for n in names])
        columns.append(f"{name}, n = {len(held.names)}")
    return (
        "## What each part of the default score is worth\n\n"
        "Tau with the accuracy, in the mean over a table's targets, on all rows of "
        "[default.md](default.md), which has each target and each part alone.\n\n"
        + markdown(columns, [list(row) for row in zip(names, *taus, strict=True)])
    )


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

`make study-default study TABLES=DIR`, seed {SEED}. {len(study.kept)} jobs, {seconds / 3600:.2f}
processor hours of scoring in all. Median time of an architecture with all repeats, one thread:
{", ".join(medians)}.

{facts}.

Not covered: the accuracies of a table come from one training recipe each, on one data set, and
those of NAS-Bench tables are of networks trained alone; intervals are over architectures and know
nothing of training seeds."""


def main() -> None:
    """Write the page of what was scored."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=Path, required=True)
    given = parser.parse_args()
    write(there(jobs(unpacked(given.tables)), given.tables), given.tables)


if __name__ == "__main__":
    main()

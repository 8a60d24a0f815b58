"""How well the default score ranks and picks: writes docs/default.md.

    python benchmarks/default.py --tables DIR

Runs `diswot rank` on the tables that DIR holds, on the training images of its cifar100.zip, into
runs/default, and the searches of `found.py`; what is kept of either is not run again. The published
score of NAS-Bench rows is a job of `study.py`, which is run here if it is not yet.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import found
import numpy as np
import study
from default_lost import DRAWN, SEARCHES, Columns, picked, searched
from numpy.typing import NDArray
from pages import AZ_NAS, DOCS, az_nas, markdown, number, plain_tau
from study import LIMIT, SEED, unpacked
from study_data import only

from diswot.cli.rank_scores import BASELINES
from diswot.proxies.default_score import WEIGHTS
from diswot.ranking.score_columns import ScoreColumns, score_columns
from diswot.ranking.score_table import Scores, read_kept
from diswot.ranking.statistics import Array, binned_kendall
from diswot.ranking.tables.read import read_table, sample
from diswot.utils import files
from diswot.utils.environment import hardware, versions

OUT = Path("runs/default")
PARTS = tuple(WEIGHTS)
NOISE = "-noise"  # ends a folder
ON_ITS_ROWS = "default, on the rows of"


@dataclass(frozen=True)
class Case:
    """A table and how it is scored.

    Attributes:
        table: File name.
        space: Of the table.
        targets: Columns of accuracies.
        bars: What was aimed at, by target; `mean` is of the taus of all targets.
        repeats: Draws of weights and images; one for AZ-NAS.
        batch_size: Images.
        limit: Rows, drawn at random; all if None.
        drawn: Rows of a random sample of which the score was chosen on the first `looked_at` in a
            random order; if 0, it was chosen on a half of all rows.
        others: Scores of the same images to compare with.
        few: Rows that AZ-NAS is scored on, drawn at random; all if None.
        az_nas: Whether it is scored at all.
        published: Job of the study that has `diswot`, where it is not scored here.
    """

    table: str
    space: str
    targets: tuple[str, ...]
    bars: Mapping[str, float]
    repeats: int = 1
    batch_size: int = 64
    limit: int | None = None
    drawn: int = 0
    looked_at: int = 0
    others: tuple[str, ...] = ()
    few: int | None = None
    az_nas: bool = True
    published: str = ""


_NB201 = ("cifar10_test", "cifar100_test", "imagenet16_120_test")
_VIT = ("c100_kd_acc", "flower_kd_acc", "chaoyang_kd_acc")
CASES = {
    "s0": Case(
        "s0_cifar100.csv",
        "s0",
        ("distilled_acc",),
        {"distilled_acc": 0.9},
        repeats=5,
        others=("diswot",),
    ),
    "nasbench201": Case(
        "nasbench201.csv.gz",
        "nasbench201",
        _NB201,
        dict.fromkeys(_NB201, 0.8),
        repeats=2,
        limit=1000,
        drawn=400,
        looked_at=400,
        few=LIMIT,
        published="nasbench201/shared/images",
    ),
    "nasbench101": Case(
        "nasbench101.csv.gz",
        "nasbench101",
        ("cifar10_valid_108",),
        {},
        batch_size=8,
        limit=1000,
        drawn=250,
        looked_at=153,
        few=LIMIT,
        published="nasbench101/shared/images",
    ),
    "autoformer": Case(
        "vit_autoformer.json",
        "autoformer",
        _VIT,
        {"c100_kd_acc": 0.72, "mean": 0.55},
        repeats=2,
        batch_size=32,
        az_nas=False,
    ),
}


def commands(name: str, folder: Path, images: str) -> list[list[str]]:
    """The commands that score a table: the default score, and AZ-NAS on noise, as in its paper."""
    case = CASES[name]
    first = [sys.executable, "-m", "diswot", "rank", f"--table={folder / case.table}"]
    first += [f"--space={case.space}", "--teacher=resnet110"]
    first += [f"--batch-size={case.batch_size}"]
    asked = {"": (images, case.repeats, case.limit, ("default", *PARTS, *case.others))}
    if case.az_nas:
        asked[NOISE] = "noise", 1, case.few, AZ_NAS[:3]
    last = [f"--target={case.targets[0]}", "--resume", "--quiet"]
    return [
        [
            *first,
            f"--data={data}",
            f"--repeats={repeats}",
            *([f"--limit={limit}"] if limit else []),
            f"--proxies={','.join(proxies)}",
            *last,
            f"--out={OUT / name}{place}",
        ]
        for place, (data, repeats, limit, proxies) in asked.items()
    ]


def scored(name: str, folder: Path) -> ScoreColumns:
    """All that was scored of a table."""
    case = CASES[name]
    table = read_table(folder / case.table, case.space)
    table = sample(table, case.limit, SEED) if case.limit else table
    kept = read_kept(OUT / name / "scores.jsonl")
    more = {Path(f"{OUT / name}{NOISE}"): AZ_NAS[:3]} if case.az_nas else {}
    more |= {study.OUT / case.published: ("diswot",)} if case.published else {}
    for place, proxies in more.items():
        for row, held in read_kept(place / "scores.jsonl").items():
            if row in kept:
                kept[row] |= only(held, list(proxies))
    proxies = dict.fromkeys(proxy for found in kept.values() for proxy in found.values)
    rows = {row.name: kept.get(row.name, Scores()) for row in table.rows}
    return score_columns(table, rows, list(proxies))


def unseen(name: str, rows: Sequence[str], folder: Path) -> NDArray[np.bool_]:
    """Which rows the score was not chosen on."""
    case = CASES[name]
    if not case.drawn:
        return np.array([zlib.crc32(("h" + row).encode()) & 1 for row in rows], dtype=bool)
    whole = read_table(folder / case.table, case.space)
    drawn = sample(whole, case.drawn, SEED).rows
    order = np.random.default_rng(5).permutation(case.drawn)[: case.looked_at]
    seen = {drawn[i].name for i in order}
    return np.array([row not in seen for row in rows])


def variants(scores: Mapping[str, Sequence[float]]) -> Columns:
    """All columns, and the default score without each of its parts."""
    columns = {name: np.array(values) for name, values in scores.items()}
    for left in PARTS:
        rest = [WEIGHTS[part] * columns[part] for part in PARTS if part != left]
        columns[f"default without {left}"] = np.sum(rest, axis=0)
    return columns


def inside(score: Array, accuracy: Array, params: Array) -> float:
    there = ~np.isnan(score) & ~np.isnan(accuracy)
    once = np.ones((1, there.sum()))
    return float(binned_kendall(score[there], accuracy[there], params[there], once)[0])


def ranking(name: str, held: ScoreColumns, folder: Path) -> str:
    """Tau of every score, on all rows and on each half, and within deciles."""
    case = CASES[name]
    columns = variants(held.scores)
    if set(AZ_NAS[:3]) <= columns.keys():
        columns["AZ-NAS"] = az_nas({**columns, AZ_NAS[3]: columns["macs"]})
    partly = [n for n in ("diswot", "AZ-NAS") if n in columns and np.isnan(columns[n]).any()]
    for other in partly:
        missing = np.isnan(columns[other])
        columns[f"{ON_ITS_ROWS} {other}"] = np.where(missing, np.nan, columns["default"])
    new = unseen(name, held.names, folder)
    everything = np.ones(len(new), dtype=bool)
    accuracies = {t: np.array(held.accuracies[t]) for t in case.targets}

    def cells(score: Array) -> list[str]:
        found = []
        for accuracy in accuracies.values():
            every, fresh, old = (
                plain_tau(score[rows], accuracy[rows]) for rows in (everything, new, ~new)
            )
            found += [f"{number(every, 3)} ({number(fresh, 3)}, {number(old, 3)})"]
            found += [number(inside(score, accuracy, columns["params"]), 3)]
        if len(accuracies) > 1:
            found += [number(fmean(plain_tau(score, a) for a in accuracies.values()), 3)]
        return found

    heads = [h for t in case.targets for h in (f"`{t}`: all (unseen, seen)", "in deciles")]
    heads += ["mean of taus"] if len(accuracies) > 1 else []
    order = ["default", *(f"default without {part}" for part in PARTS), *PARTS]
    order += [n for n in (*BASELINES, "diswot", f"{ON_ITS_ROWS} diswot") if n in columns]
    order += [n for n in ("AZ-NAS", f"{ON_ITS_ROWS} AZ-NAS") if n in columns]
    aims = [f"{number(case.bars[t], 2)}" if t in case.bars else "" for t in case.targets]
    aimed = [a for aim in aims for a in (aim, "")]
    aimed += [number(case.bars["mean"], 2) if "mean" in case.bars else ""] * (len(accuracies) > 1)
    rows = [["aimed at", *aimed], *([n, *cells(columns[n])] for n in order)]
    return f"### {name}, n = {len(new)}, {new.sum()} unseen\n\n" + markdown(["score", *heads], rows)


def page(names: Sequence[str], folder: Path) -> str:
    """The page, from what was scored."""
    facts = ", ".join(f"{k} {v}" for k, v in {**hardware(), **versions()}.items())
    sheets = {name: scored(name, folder) for name in names}
    ranked = "\n\n".join(ranking(name, held, folder) for name, held in sheets.items())
    there = [n for n in names if n in found.FIELDS and found.finished(n)]
    rows = [row for n in there for row in searched(n, CASES[n].targets, folder)]
    heads = ["table", "score", "points lost, six budgets", "no budget"]
    by_search = markdown([*heads, "scored"], rows)
    rest = [n for n in names if n not in there]
    rows = [row for n in rest for row in picked(n, CASES[n].targets, sheets[n])]
    by_rows = markdown(heads, rows)
    return f"""# The default score

`make study-default` wrote this page.

    default = {" + ".join(f"{w:g} {part}" for part, w in WEIGHTS.items())}

`capacity` is the logarithm of the working layers' widths times their reach; the others are gaps,
zero or below: fine detail and variety of channels that the first blocks lose and the teacher's do
not, in the mean over eight draws of their weights; what the worst block loses of white noise; how
much more gradients change from block to block than in a residual network; and the layers on the
shortest path through a block. `src/diswot/proxies/default.py` says why each is there;
[score_log.md](score_log.md) what else was tried. There is no calibration and no constant of a
space: a candidate's number is its own.

## Ranking

Kendall's tau-b with the accuracy: on all rows, and in brackets on the rows that nothing was chosen
on and on those that the form and the constants were chosen on (of S0 and the transformers one half;
of NAS-Bench-201 a random 400, of NAS-Bench-101 a random 153). The half of S0 and that of the
transformers are not quite unseen: figures of all rows were looked at on the way. *In deciles* is
the mean tau within tenths of the table of about equal parameter count.

{ranked}

`diswot` needs a teacher as wide as its students, and so has no value for transformers; of the
NAS-Bench tables it is known of {LIMIT} rows, and of NAS-Bench-101 with a teacher as wide as its
cells. AZ-NAS sees noise, as in its paper, and {LIMIT} rows of these tables; on photographs it ranks
worse: see [score_log.md](score_log.md).

## Found

What `diswot.search` returns: the accuracy that it lacks to the best student of the table within
the budget, in points, averaged over six budgets (the sixths of the table's parameter counts, the
last of which is none) and five seeds of images, weights and proposals; ± is over seeds. S0 is
searched exhaustively. Of NAS-Bench-201 each search proposes cells until
{found.FIELDS["nasbench201"].trials} are within the budget; a cell that is not in the table, which
holds a third of the space, fails, so that the others (*scored*) are what a search goes by. *As many
at random, all trained* takes the most accurate of as many random rows: it trains every one.

{by_search}

Of tables whose searches are not all done, or not to be afforded, the scores above tell: searches
look at all rows of AutoFormer, and each of {SEARCHES} at {DRAWN} random rows of a NAS-Bench table,
of the {LIMIT} that all scores are known of.
Of equal scores the smallest student is taken, as a search does.

{by_rows}

## How this was made

{facts}. The commands:

```console
{chr(10).join("$ " + line for name in names for line in shown(name))}
```
"""


def shown(name: str) -> list[str]:
    """The commands as a user would type them, the data as DIR."""
    return [" ".join(["diswot", *words[3:-1]]) for words in commands(name, Path("DIR"), "cifar100")]


def main() -> None:
    """Score what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=Path, required=True)
    given = parser.parse_args()
    if not (given.tables / "cifar100.zip").is_file():
        sys.exit(f"skipped: {given.tables} holds no cifar100.zip, or is not there")
    images = unpacked(given.tables)
    there = [name for name, case in CASES.items() if (given.tables / case.table).is_file()]
    for name in there:
        for each in commands(name, given.tables, str(images)):
            subprocess.run([*each, f"--workers={min(2, os.cpu_count() or 1)}"], check=True)
        if CASES[name].published:
            jobs = {job.name: job for job in study.jobs(images)}
            study.run(jobs[CASES[name].published], given.tables)
        if name in found.FIELDS:
            found.run(name, given.tables, images)
    text = page(there, given.tables)
    files.write(DOCS / "default.md", lambda temporary: Path(temporary).write_text(text))
    print(f"written: {DOCS / 'default.md'}")


if __name__ == "__main__":
    main()

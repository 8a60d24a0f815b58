"""The page of `teachers_table.py`: what a table of any number of lines says.

    python benchmarks/teachers_page.py

Writes docs/teachers_table.md between its marks. Intervals are those of 1,000 resamples of the
students. What needs two seeds takes the students that have both, and says how many there are.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from statistics import fmean

import numpy as np
import teachers_analysis as analysis
from matplotlib.figure import Figure
from pages import DOCS, markdown, number, write_page
from short_training import lines
from teachers_analysis import Estimate
from teachers_scores import COMPARING, FRESH, SCORED, SCORES, TRAINED
from teachers_space import TABLES, TEACHERS
from teachers_table import COLUMNS, LOGITS

from diswot.ranking.statistics import Array
from diswot.utils import files

TABLE, PAGE = TABLES / "teachers.csv", DOCS / "teachers_table.md"
PICTURE = "pictures/teachers_table.svg"
TOO_FEW = "Fewer than eight students have two teachers, so nothing can be said yet."
FEWEST = 3  # students for a statistic
LEAST = 8  # students under two teachers before anything is said
Rows = Sequence[Mapping[str, str]]


def interval(found: Estimate, digits: int = 2) -> str:
    if math.isnan(found.value):
        return "-"
    text = number(found.value, digits)
    if math.isnan(found.low):
        return text
    return f"{text} ({number(found.low, digits)} to {number(found.high, digits)})"


def column_name(teacher: str, loss: str) -> str:
    if teacher == "none":
        return "labels alone"
    return teacher if loss == LOGITS else f"{teacher}, with maps"


def present(rows: Rows) -> str:
    """Return how many students each column has, how they do, and what the teacher adds."""
    cells = []
    for teacher, loss in COLUMNS:
        own = [r for r in rows if (r["teacher"], r["loss"]) == (teacher, loss)]
        test = next((r["teacher_test"] for r in own if r["teacher_test"]), "-")
        counts = [sum(r["seed"] == str(seed) for r in own) for seed in (0, 1)]
        mean, deviation, gain = "-", "-", "-"
        names, y = analysis.complete(rows, [COLUMNS[0], (teacher, loss)], [0, 1])
        if len(names) >= FEWEST:
            mean, deviation = number(y[:, 1].mean()), number(y[:, 1].mean(1).std(ddof=1))
            gained = analysis.estimate(y, lambda v: float((v[:, 1] - v[:, 0]).mean()))
            gain = interval(gained) if teacher != "none" else "-"
        seconds = number(fmean(float(r["seconds"]) for r in own), 0) if own else "-"
        cells.append([column_name(teacher, loss), test, *map(str, counts), str(len(names)), mean,
                      deviation, gain, seconds])  # fmt: skip
    heads = ["column", "teacher %", "seed 0", "seed 1", "n", "mean %", "deviation", "gain",
             "seconds"]  # fmt: skip
    return markdown(heads, cells)


@dataclass(frozen=True)
class Sample:
    """Students that have the columns of logits of some teachers, and the seeds that they have.

    Attributes:
        names: Names of the S students.
        teachers: Names of the T teachers.
        y: Accuracies, S x T x R.
    """

    names: list[str]
    teachers: tuple[str, ...]
    y: Array

    @property
    def freedom(self) -> int:
        """Degrees of freedom of the interaction; 0 if there are too few students."""
        students, teachers, _ = self.y.shape
        return (students - 1) * (teachers - 1) if students >= FEWEST else 0

    @property
    def sizes(self) -> str:
        students, _, seeds = self.y.shape
        names = ", ".join(self.teachers)
        return f"n = {students} students, {seeds} seed{'s' * (seeds > 1)}, teachers {names}."


def samples(rows: Rows, seeds: Sequence[int]) -> list[Sample]:
    """Return the complete students of each choice of two or more teachers."""
    found = []
    for count in range(len(TEACHERS), 1, -1):
        for teachers in combinations(TEACHERS, count):
            columns = [(teacher, LOGITS) for teacher in teachers]
            names, y = analysis.complete(rows, columns, seeds)
            found.append(Sample(names, teachers, y))
    return found


def largest(found: Sequence[Sample]) -> Sample:
    """Return the sample that knows the most of the interaction; the first of equals."""
    return max(found, key=lambda each: each.freedom)


def variance(taken: Sample) -> str:
    """Return the analysis of variance, with the standard deviation of each source."""
    found = analysis.analysis_of_variance(taken.y)
    cells = []
    for name, line in found.items():
        if not line.df:
            continue
        size = analysis.estimate(taken.y, lambda y, name=name: analysis.deviations(y)[name])
        p = "-" if math.isnan(line.p) else f"{line.p:.2g}"
        cells.append([name, str(line.df), number(line.mean), number(line.f), p, interval(size)])
    heads = ["source", "df", "mean square", "F", "p", "deviation in points"]
    return markdown(heads, cells)


def verdict(taken: Sample) -> str:
    """Say whether the interaction is beyond noise, and how large a one would have been seen."""
    s, t, r = taken.y.shape
    sizes = analysis.deviations(taken.y)
    if r == 1:
        return (
            f"There is one seed, so one cannot separate what the teacher changes from noise. "
            f"Together they have a deviation of {sizes[analysis.INTERACTION]:.2f} points, beside "
            f"{sizes[analysis.STUDENT]:.2f} between students."
        )
    line = analysis.analysis_of_variance(taken.y)[analysis.INTERACTION]
    least = analysis.detectable(s, t, r, sizes[analysis.RESIDUAL])
    beyond = "is beyond noise" if line.p < analysis.LEVEL else "is not beyond noise"
    return (
        f"The interaction of student and teacher {beyond} "
        f"(F = {line.f:.2f}, p = {line.p:.2g}). Its deviation is estimated as "
        f"{sizes[analysis.INTERACTION]:.2f} points, that of a seed's residual as "
        f"{sizes[analysis.RESIDUAL]:.2f}, and that between students as "
        f"{sizes[analysis.STUDENT]:.2f}. A table like this one shows an interaction of "
        f"{least:.2f} points in four of five cases."
    )


def agreements(taken: Sample) -> str:
    """Return the taus between rankings, of which one row is what the teacher changes."""
    found = analysis.agreement(taken.y)
    rows = {
        "one teacher, two seeds": found.seeds,
        "two teachers, one seed": found.teachers,
        "two teachers, two seeds": found.both,
        "first row less third": found.lead,
    }
    cells = [[name, interval(each)] for name, each in rows.items() if not math.isnan(each.value)]
    return markdown(["rankings compared", "mean tau"], cells)


def winners(taken: Sample, count: int = 3) -> str:
    """Return the best students under each teacher."""
    mean = taken.y.mean(2)
    cells = []
    for place, teacher in enumerate(taken.teachers):
        best = np.argsort(-mean[:, place])[:count]
        cells.append([teacher, *(f"{taken.names[i]}: {mean[i, place]:.1f}" for i in best)])
    return markdown(["teacher", *(f"student {i + 1}" for i in range(count))], cells)


def alone(rows: Rows) -> str:
    """Return the tau of the accuracy alone with that of each column of seed 0."""
    cells = []
    for teacher, loss in COLUMNS[1:]:
        names, y = analysis.complete(rows, [COLUMNS[0], (teacher, loss)], [0])
        if len(names) >= FEWEST:
            tau = analysis.tau(y[:, 0, 0], y[:, 1, 0])
            cells.append([column_name(teacher, loss), str(len(names)), interval(tau)])
    names, y = analysis.complete(rows, COLUMNS[:1], [0, 1])
    if len(names) >= FEWEST:
        tau = analysis.tau(y[:, 0, 0], y[:, 0, 1])
        cells.append(["labels alone, another seed", str(len(names)), interval(tau)])
    return markdown(["column", "n", "tau with labels alone"], cells)


def picture(rows: Rows) -> Figure:
    """Draw the accuracy alone against that under each teacher, students of seed 0."""
    figure = Figure(figsize=(5.5, 4.5), layout="constrained")
    axes = figure.add_subplot(xlabel="labels alone, %", ylabel="distilled, %")
    ends: list[float] = []
    for (teacher, loss), marker in zip(COLUMNS[1:], "os^x", strict=True):
        names, y = analysis.complete(rows, [COLUMNS[0], (teacher, loss)], [0])
        if names:
            axes.plot(y[:, 0, 0], y[:, 1, 0], marker, label=column_name(teacher, loss), alpha=0.7)
            ends += [float(y.min()), float(y.max())]
    axes.plot([min(ends), max(ends)], [min(ends), max(ends)], ":", color="grey")
    axes.legend(frameon=False)
    return figure


def score_of(scored: Rows, names: Sequence[str], teacher: str, weights: str, score: str) -> Array:
    """Return a score of some students; NaN where there is none."""
    found = {
        r["student"]: r[score] for r in scored if (r["teacher"], r["weights"]) == (teacher, weights)
    }
    return np.array([float(found.get(name) or "nan") for name in names])


def scores(scored: Rows, taken: Sample) -> str:
    """Return the tau of each score with each teacher's column, their mean and the differences.

    The difference is the mean over pairs of teachers of the tau between the difference of their
    scores and that of their accuracies: what a score knows of the teacher.
    """
    mean = taken.y.mean(2)
    cells = []
    for weights in (FRESH, TRAINED):
        for score in SCORES if weights == FRESH else COMPARING:
            columns = [score_of(scored, taken.names, t, weights, score) for t in taken.teachers]
            x = np.array(columns).T
            if np.isnan(x).all():
                continue
            own = [analysis.tau(x[:, j], mean[:, j]).value for j in range(x.shape[1])]
            pairs = list(combinations(range(x.shape[1]), 2))
            differences = [(x[:, i] - x[:, j], mean[:, i] - mean[:, j]) for i, j in pairs]
            knows = "-"
            if score in COMPARING:
                knows = interval(analysis.lead(differences, []))
            name = score if weights == FRESH else f"{score}, trained teacher"
            overall = analysis.tau(x.mean(1), mean.mean(1))
            cells.append([name, *map(number, own), interval(overall), knows])
    return markdown(["score", *taken.teachers, "mean", "differences"], cells)


def predictors(scored: Rows, taken: Sample) -> str:
    """Return the tau of scores without a teacher with the difference of two teachers."""
    mean = taken.y.mean(2)
    names = taken.teachers
    pairs = list(combinations(range(len(names)), 2))
    cells = []
    for score in (each for each in SCORES if each not in COMPARING):
        x = score_of(scored, taken.names, names[0], FRESH, score)
        taus = [analysis.tau(x, mean[:, i] - mean[:, j]) for i, j in pairs]
        if not np.isnan(x).all():
            cells.append([score, *map(interval, taus)])
    return markdown(["score", *(f"{names[i]} less {names[j]}" for i, j in pairs)], cells)


def page(rows: Rows, scored: Rows) -> str:
    """Return the part of the page that is made."""
    head = f"{len(rows)} of {24 * len(COLUMNS) * 2} trainings are there.\n\n{present(rows)}"
    one, two = (largest(samples(rows, seeds)) for seeds in ([0], [0, 1]))
    most = largest([two, one])
    if not most.freedom or len(most.names) < LEAST:
        return f"{head}\n\n{TOO_FEW}"
    tested = two if two.freedom else one
    parts = {
        "Does the teacher change the order?": (
            f"{tested.sizes} {verdict(tested)}\n\n{variance(tested)}"
        ),
        "Rankings": f"{tested.sizes}\n\n{agreements(tested)}",
        "Which students win": f"{most.sizes} Accuracy in %.\n\n{winners(most)}",
        "Alone and distilled": f"{alone(rows)}\n\n![accuracy alone and distilled]({PICTURE})",
        "Scores": f"{most.sizes} Kendall's tau.\n\n{scores(scored, most)}",
        "Whom a teacher favours": f"{most.sizes} Kendall's tau.\n\n{predictors(scored, most)}",
    }
    machines = sorted({f"torch {r['torch']}, {r['processor']}" for r in rows})
    text = "\n\n".join(f"## {title}\n\n{part}" for title, part in parts.items())
    return f"{head}\n\n{text}\n\n{'; '.join(machines)}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--scores", type=Path, default=SCORED)
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args()
    rows = lines(options.table)
    write_page(page(rows, lines(options.scores)), options.page)
    if largest(samples(rows, [0])).freedom:
        write = partial(picture(rows).savefig, format="svg", metadata={"Date": None})
        files.write(options.page.parent / PICTURE, write)


if __name__ == "__main__":
    main()

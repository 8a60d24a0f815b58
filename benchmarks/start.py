"""What a student gains if it starts from its teacher, by distiller, in short trainings on a CPU.

All classes of CIFAR-100 with 100 training images each, a trained ResNet-32, a student of three
blocks a stage, and 5 epochs. Each finished training is one line of a CSV file; a training whose
line is there is not repeated. `--part 0/2` and `--part 1/2` share the trainings of two processes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from pages import markdown, spread
from short_training import CLASSES, DISTILLERS, FILE, STARTS, School, Training, append, lines

from diswot.models.registry import create_teacher

EPOCHS, SEEDS = 5, 3


@dataclass(frozen=True)
class Run:
    """One training."""

    student: str
    start: str
    distiller: str
    seed: int


def runs(seeds: int) -> Iterator[Run]:
    """Yield all trainings, seed by seed, so that a study that is stopped has each of them once."""
    for seed in range(seeds):
        for distiller in DISTILLERS:
            for start in STARTS:
                yield Run("resnet20", start, distiller, seed)


def done(path: Path) -> set[Run]:
    """Return the trainings whose lines are in the table."""
    return {
        Run(row["student"], row["start"], row["distiller"], int(row["seed"])) for row in lines(path)
    }


def table(path: Path) -> str:
    """Return the accuracies as a table: mean and standard deviation over the seeds."""
    rows, cells_of = lines(path), []
    for distiller, (weight, losses) in DISTILLERS.items():
        cells = [distiller, f"{weight:g} x cross-entropy {losses}"]
        for start in STARTS:
            found = [row for row in rows if (row["start"], row["distiller"]) == (start, distiller)]
            last = [float(row[f"epoch{EPOCHS}"]) for row in found]
            cells += [spread(last) if last else "-", str(len(last))]
        cells_of.append(cells)
    columns = ["distiller", "loss"]
    columns += [text for start in STARTS for text in (f"start {start}, %", "seeds")]
    return markdown(columns, cells_of)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="CIFAR-100 as a folder of images")
    parser.add_argument("--teacher-weights", type=Path)
    parser.add_argument("--show", action="store_true", help="print the table of what is there")
    parser.add_argument("--out", type=Path, default=Path("docs/tables/start.csv"))
    parser.add_argument("--part", default="0/1", help="which of how many processes this one is")
    parser.add_argument("--only", help="distillers, with commas")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--lr", type=float, help="highest learning rate, to choose it")
    options = parser.parse_args()
    if options.show:
        print(table(options.out))
        return
    school = School(options.data, options.teacher_weights)
    number, count = map(int, options.part.split("/"))
    for run in list(runs(options.seeds))[number::count]:
        left_out = options.only and run.distiller not in options.only.split(",")
        if left_out or run in done(options.out):
            continue
        build = partial(create_teacher, f"{FILE}:{run.student}", CLASSES)
        training = Training(run.distiller, EPOCHS, run.start, run.seed, options.lr)
        row = {**asdict(run), **school.train(build, training)}
        append(options.out, row)
        print(row, flush=True)


if __name__ == "__main__":
    main()

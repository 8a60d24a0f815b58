"""Ways to compare the outputs of an inherited sub-network with its teacher's: which sees the most.

    python benchmarks/agreements.py --data DIR --teacher-weights FILE
    python benchmarks/agreements.py --show

The sub-networks and their accuracies are those of `subnets.py`, step `table`. Each way compares
the logits of 1,000 training images, and is one column of the table.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import torch
from pages import markdown
from short_training import School, append, lines
from subnet_space import TABLES, build, sample
from subnets import TABLE
from torch import Tensor

from diswot.models.inheritance import TeacherLayers, inherit
from diswot.models.initialization import fresh
from diswot.observation.observe import Observation, observe
from diswot.ranking.rank import rank

OUT, IMAGES = TABLES / "subnets_agreements.csv", 1000
TEMPERATURES = (2, 4, 8)
SCALES = (0.25, 0.35, 0.5, 0.7, 1, 1.4, 2, 2.8, 4)
RIDGES = (1, 10)  # over the mean square of a feature


def divergence(teacher: Tensor, student: Tensor) -> float:
    """Return KL(p_T || p_S) of logits, mean over rows."""
    first, second = teacher.log_softmax(1), student.log_softmax(1)
    return float((first.exp() * (first - second)).sum(1).mean())


def standard(logits: Tensor) -> Tensor:
    """Give each row mean 0 and deviation 1."""
    centred = logits - logits.mean(1, keepdim=True)
    return centred / centred.std(1, keepdim=True)


def refitted(features: Tensor, logits: Tensor, ridge: float) -> Tensor:
    """Predict the teacher's logits by a new classifier, fitted on half of the images for the other.

    Args:
        features: What enters the student's classifier, N x D.
        logits: Of the teacher, N x K.
        ridge: Penalty of the fit.
    """
    half = len(features) // 2
    found = torch.empty_like(logits)
    for own, other in ((slice(half), slice(half, None)), (slice(half, None), slice(half))):
        mean, bias = features[other].mean(0), logits[other].mean(0)
        x = features[other] - mean
        gram = x.T @ x
        gram += ridge * gram.diagonal().mean() * torch.eye(len(gram))
        weight = torch.linalg.solve(gram, x.T @ (logits[other] - bias))
        found[own] = (features[own] - mean) @ weight + bias
    return found


def ways(teacher: Observation, student: Observation) -> dict[str, float]:
    """Compare in every way; higher is better."""
    t, s = teacher.logits.float(), student.logits.float()
    found = {"plain": -divergence(t, s)}
    found |= {f"temperature {T}": -divergence(t / T, s / T) for T in TEMPERATURES}
    found["best scale of the student's logits"] = max(-divergence(t, s * by) for by in SCALES)
    found["standardised, temperature 1"] = -divergence(standard(t), standard(s))
    found["standardised, temperature 2"] = -divergence(standard(t) / 2, standard(s) / 2)
    for ridge in RIDGES:
        fitted = refitted(student.head_input.float(), t, ridge)
        found[f"classifier fitted anew, ridge {ridge}"] = -divergence(t, fitted)
    found["same class as the teacher"] = float((t.argmax(1) == s.argmax(1)).float().mean())
    found["accuracy on these images"] = float((student.targets == s.argmax(1)).float().mean())
    return found


def measure(school: School) -> None:
    """Add the lines that are missing."""
    batch = school.images.batch(IMAGES, 7)
    order = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(0))
    images, labels = (part[order] for part in batch)
    layers = TeacherLayers(school.teacher)
    ready = {int(row["number"]) for row in lines(OUT)}
    with torch.no_grad():
        teacher = observe(school.teacher, images, labels)
        for number, params in sorted(sample().items()):
            if number not in ready:
                student = fresh(partial(build, params), "default", 0)
                inherit(layers, student)
                found = ways(teacher, observe(student, images, labels))
                append(OUT, {"number": number, **{k: f"{v:.6g}" for k, v in found.items()}})


def show() -> str:
    """Return Kendall's tau of each way with the accuracy after one epoch."""
    table = {row["number"]: row for row in lines(TABLE)}
    rows = lines(OUT)
    columns = {name: [float(row[name]) for row in rows] for name in rows[0] if name != "number"}
    after = [float(table[row["number"]]["epoch1"]) for row in rows]
    found = rank(columns, after, [float(table[r["number"]]["model_params"]) for r in rows])
    cells = []
    for name, ranking in found.rankings.items():
        tau = ranking.statistics["kendall"]
        cells.append([name, f"{tau.value:.2f}", f"{tau.low:.2f} to {tau.high:.2f}"])
    return markdown([f"logits of {IMAGES:,} images", "tau", "95 % interval"], cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="CIFAR-100 as a folder of images")
    parser.add_argument("--teacher-weights", type=Path)
    parser.add_argument("--show", action="store_true", help="print the table of what is there")
    options = parser.parse_args()
    if not options.show:
        measure(School(options.data, options.teacher_weights))
    print(show())


if __name__ == "__main__":
    main()

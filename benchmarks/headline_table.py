"""The tables of `headline.py`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from pages import markdown, spread

Row = Mapping[str, Any]
HAND = "by hand"
COLUMNS = ("pick", "params", "MACs", "layers", "latency ms", "scored", "search s", "fits",
           "start", "distilled %", "n", "alone %", "n", "training s")  # fmt: skip


def table(picked: Sequence[Row], trained: Sequence[Row], hands: Mapping[str, str]) -> str:
    """Return a table for each cell and length of training: a line for each pick.

    Random picks share one line, whose spread is that between students, not seeds. Seconds are those
    of one processor: of the search, and of one distillation. `fits` is the share of parameters that
    a student can inherit, `start` where its weights are from.

    Args:
        picked: Lines of the file of picks.
        trained: Lines of the table of trainings.
        hands: The design by hand of each cell.
    """
    parts = []
    lengths = dict.fromkeys((row["cell"], row["epochs"], row["images"]) for row in trained)
    for cell, epochs, images in lengths:
        own = [row for row in picked if row["cell"] == cell]
        made = [
            r for r in trained if (r["cell"], r["epochs"], r["images"]) == (cell, epochs, images)
        ]
        lines = [_line(pick, rows, made, hands[cell]) for pick, rows in _grouped(own).items()]
        title = f"{cell}: {epochs} epochs, {images} training images of each class"
        title += f"; the teacher has {', '.join(sorted({r['teacher'] for r in made}))} %"
        parts.append(f"{title}\n\n{markdown(COLUMNS, lines)}")
    facts = sorted({f"torch {row['torch']}, {row['processor']}" for row in trained})
    return "\n\n".join([*parts, *facts])


def architecture(pick: Row) -> str:
    """Return the identity of the student of a pick within its cell."""
    return HAND if pick["params"] is None else json.dumps(pick["params"], sort_keys=True)


def _grouped(picked: Iterable[Row]) -> dict[str, list[Row]]:
    """Return the picks by name, random ones together."""
    found: dict[str, list[Row]] = {}
    for row in picked:
        name = "random" if row["pick"].startswith("random") else row["pick"]
        found.setdefault(name, []).append(row)
    return found


def _line(name: str, picks: Sequence[Row], trained: Iterable[Row], hand: str) -> list[str]:
    students = {architecture(row) for row in picks}
    made = [row for row in trained if row["architecture"] in students]
    if name == "random":  # others have several seeds, but a student may be both
        made = [row for row in made if row["seed"] == "0"]
    taught = [row for row in made if row["way"] == "distilled"]
    starts = dict.fromkeys(row["start"] for row in taught)
    return [
        f"{name}: {hand}" if name == HAND else name,
        _range([row["model_params"] / 1e3 for row in picks], "{:.0f}") + " K",
        _range([row["macs"] / 1e6 for row in picks], "{:.1f}") + " M",
        _range([row["layers"] for row in picks], "{}"),
        _range([row["latency_ms"] for row in picks], "{:.2f}"),
        _range([row["scored"] for row in picks], "{}"),
        _range([row["search_seconds"] for row in picks], "{:.0f}"),
        _range([100 * row["fits"] for row in picks], "{:.0f}") + " %",
        " or ".join(starts) or "-",
        *_accuracy(taught),
        *_accuracy([row for row in made if row["way"] == "alone"]),
        f"{fmean(float(row['cpu_seconds']) for row in taught):.0f}" if taught else "-",
    ]


def _accuracy(made: Sequence[Row]) -> tuple[str, str]:
    """Return the accuracy, mean and standard deviation, and the number of trainings."""
    values = [float(row["accuracy"]) for row in made]
    return (spread(values) if values else "-"), str(len(values))


def _range(values: Sequence[float], form: str) -> str:
    ends = dict.fromkeys(form.format(value) for value in (min(values), max(values)))
    return " to ".join(ends)

"""The form of the default score, chosen on some families of tables and looked at on the others.

    python benchmarks/leave_one_out.py record --data CIFAR100
    python benchmarks/leave_one_out.py choose

`record` computes the parts of the default score of the rows that `targets.toml` names, and keeps
the sizes of each working layer, so that other exponents of the capacity can be tried without
another pass. `choose` tries all forms in a grid. For each family of tables it takes the form that
ranks the other families best in the mean, and prints what that form reaches on the family that was
left out, beside the form that is shipped, which has seen all of them.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import picks
from pages import DOCS, markdown, number, plain_tau
from short_training import lines
from torch import nn

from diswot.cli import inputs
from diswot.cli.options import TeacherOptions
from diswot.cli.rank_scores import rows_of
from diswot.cli.study_file import TableSettings, read_study
from diswot.costs.counts import count_depth, count_macs, count_params
from diswot.data.dataset import Batch
from diswot.models.initialization import derive_seed, fresh
from diswot.models.registry import create_teacher
from diswot.proxies.candidate import Candidate
from diswot.proxies.default_score import (
    EXPONENTS,
    WEIGHTS,
    detail,
    directness,
    effective_rank,
)
from diswot.proxies.first_block import first_block_roughness
from diswot.proxies.layer_recorder import LayerRecorder
from diswot.proxies.scorer import PROXY
from diswot.spaces.registry import build_network, create_space
from diswot.utils import files, jsonl
from diswot.utils.environment import hardware, versions

TEACHER = "resnet110"
STUDY = Path("benchmarks/targets.toml")
KEPT = Path("runs/parts")
RANDOM = derive_seed(0, 0, PROXY)  # as a search with seed 0 has it
SIZES = ("params", "macs", "depth", "size")
PARTS = {"effective_rank": effective_rank, "detail": detail, "directness": directness}


@dataclass(frozen=True)
class Form:
    """Exponents of the capacity, and the weights of the other parts."""

    weights: float
    activations: float
    effective_rank: float
    detail: float
    directness: float

    def score(self, row: Mapping[str, Any]) -> float:
        sizes = np.asarray(row["layers"], dtype=float).reshape(-1, 2)
        total = float((sizes[:, 0] ** self.weights * sizes[:, 1] ** self.activations).sum())
        if not total:
            return -math.inf
        return math.log(total) + sum(getattr(self, part) * row[part] for part in PARTS)


SHIPPED = Form(*EXPONENTS, **{part: WEIGHTS[part] for part in PARTS})
GRID = [
    Form(*values)
    for values in product(
        (0.4, 0.5, 0.6, 0.7), (0.0, 0.1, 0.2, 0.3), (0.0, 0.15, 0.3, 0.5), (0.5, 1.0, 1.5),
        (0.0, 0.25, 0.5),
    )
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Target:
    """A column of accuracies, and what is recorded of the rows that have one."""

    family: str
    column: str
    rows: Sequence[Mapping[str, Any]]

    @cached_property
    def accuracies(self) -> np.ndarray[Any, Any]:
        values = (row["accuracies"][self.column] for row in self.rows)
        return np.array([math.nan if value is None else value for value in values], dtype=float)

    def tau(self, scores: Sequence[float]) -> float:
        return plain_tau(np.asarray(scores), self.accuracies)

    def size(self, name: str) -> float:
        if name == "size":
            return self.tau([math.log(row["params"] * row["depth"]) for row in self.rows])
        return self.tau([row[name] for row in self.rows])


def record(study: Path, data: str, kept: Path) -> None:
    """Compute the parts of all rows of a study; rows that are kept are not computed again."""
    common = TableSettings()
    for settings in read_study(study, replace(common, data=replace(common.data, data=data))):
        path = kept / f"{settings.name}.jsonl"
        done = {line["name"] for line in jsonl.read_lines(path)}
        table = rows_of(settings)
        facts = inputs.image_facts(settings.data)
        images = inputs.teacher_of(inputs.images_of(facts), TeacherOptions(TEACHER)).images
        batch = images.batch(settings.scoring.batch_size)
        classes, size = len(images.classes), images.size
        space = create_space(table.space, classes, size)
        teacher = first_block_roughness(
            create_teacher(TEACHER, classes, size), batch.images, RANDOM
        )
        for row in table.rows:
            if row.name in done:
                continue
            try:
                facts_of_row = parts(partial(build_network, space, row.params), batch, teacher)
            except Exception as error:  # a network may take no images of this size
                print(f"{settings.name} {row.name} is left out: {error}", flush=True)
                continue
            jsonl.append(path, [{"name": row.name, "accuracies": row.accuracies, **facts_of_row}])
        print(settings.name, len(table.rows), flush=True)


def parts(build: Callable[[], nn.Module], batch: Batch, teacher: float | None) -> dict[str, Any]:
    """Return the sizes of a network and of its layers, and the other parts of the score."""
    model = fresh(build, "kaiming", 0)
    candidate = Candidate(model, None, batch, RANDOM, (LayerRecorder,), teacher_roughness=teacher)
    return {
        "params": count_params(model),
        "macs": count_macs(model, tuple(batch.images.shape[1:])),
        "depth": count_depth(model),
        **{name: part(candidate) for name, part in PARTS.items()},
        "layers": list(candidate.recorded(LayerRecorder).sizes.values()),
    }


def targets(study: Path, kept: Path) -> list[Target]:
    found = []
    for settings in read_study(study, TableSettings()):
        path = kept / f"{settings.name}.jsonl"
        if rows := list(jsonl.read_lines(path)):
            columns = settings.targets or list(rows[0]["accuracies"])
            found += [Target(settings.name, column, rows) for column in columns]
    return found


def means(taus: Mapping[Target, float], left_out: str = "") -> float:
    """Return the mean over families of the mean tau of a family."""
    families = dict.fromkeys(target.family for target in taus if target.family != left_out)
    return fmean(fmean(t for x, t in taus.items() if x.family == family) for family in families)


def page(found: Sequence[Target]) -> str:
    """Return a table of all targets, and one of the forms that were chosen."""
    forms = {form: _taus(form, found) for form in {*GRID, SHIPPED}}
    families = dict.fromkeys(target.family for target in found)
    chosen = {f: max(forms, key=lambda form: means(forms[form], f)) for f in families}
    table, ahead = [], 0
    for target in found:
        sizes = [target.size(name) for name in SIZES]
        unseen = forms[chosen[target.family]][target]
        ahead += unseen >= max(sizes)
        numbers = [unseen, forms[SHIPPED][target], *sizes]
        count = str(int(np.isfinite(target.accuracies).sum()))
        table.append([f"{target.family} `{target.column}`", count, *map(number, numbers)])
    left_out = {target: forms[chosen[target.family]][target] for target in found}
    sizes = [means({target: target.size(name) for target in found}) for name in SIZES]
    summary = [means(left_out), means(forms[SHIPPED]), *sizes]
    table.append(["mean over families", "", *map(number, summary)])
    columns = ["accuracy", "n", "left out", "shipped", "params", "MACs", "depth", "size"]
    values = [[family, *(f"{value:g}" for value in vars(form).values())]
              for family, form in chosen.items()]  # fmt: skip
    without = [
        [part, number(means(_taus(replace(SHIPPED, **{part: 0.0}), found)), 3)] for part in PARTS
    ]
    picked = lines(picks.TABLE)
    return TEXT.format(
        targets=markdown(columns, table),
        ahead=f"{ahead} of {len(found)}",
        forms=markdown(["left out", *vars(SHIPPED)], values),
        count=len(forms),
        without=markdown(["without", "mean over families"], without),
        whole=number(means(forms[SHIPPED]), 3),
        picks=picks.table(picked) if picked else "Not trained yet.",
        machine=", ".join(f"{name} {value}" for name, value in (hardware() | versions()).items()),
    )


TEXT = """# The default score

    default = capacity + 0.3 effective_rank + detail + 0.25 directness

- `capacity`: the logarithm of the sum over working layers of w^0.6 a^0.2, of w weights and a
  activations for one image. It is near log params + log depth, and counts layers that see many
  positions somewhat more.
- `effective_rank`: the logarithm of the effective rank of the last map's channels, which is what
  the classifier can read.
- `detail` and `directness` are gaps, zero where a student lacks nothing: detail of the images that
  the first block smooths away and the teacher's first block keeps; layers on the shortest path
  through a block.

[The mathematics](maths.md#the-default-score) has the formulas,
[the log](score_log.md) what else was tried.

## What to expect on a table of your own

Kendall's tau-b with the accuracy. *Left out*: for each family of tables the exponents and weights
were chosen on the other families, out of {count} forms, by the mean over families. This is what a
new table may give, with one reservation: the parts themselves were found while all tables were in
sight. *Shipped*: the form above, which has seen all of these rows. *Size*: log params + log depth.
One draw of weights and images (CIFAR-100; noise for timm and for the space of a user), ResNet-110
as the teacher, rows drawn at random.

{targets}

Left out, the score is at or above the best of the four sizes on {ahead} targets. Which size is the
best is known only afterwards.

Where it loses: networks whose resolution is a choice (TransNAS macro), where MACs lead; NAS-Bench-
Macro, where the number of blocks leads; transformers of AutoFormer, where depth leads on CIFAR-100
and width on the others; and NAS-Bench-MR with few images, where larger networks are worse. These
were trained alone: students distilled on the few images of Flowers rank as the others do.

The forms that were chosen:

{forms}

## What each part is worth

The shipped form without one part; with all, the mean over families is {whole}.

{without}

## What a search picks

Under the parameters and MACs of a plain design by hand: the winner of a search of 500 candidates
by the default score, the largest student by parameters, the design by hand, and random students of
that cost. All distilled alike from fresh weights for 8 epochs on ten classes of CIFAR-100; test
accuracy in %, and the number of trainings (`benchmarks/picks.py`). Seeds differ by up to 5 points.
`verified` is what `search --verify 4` picks after three epochs.

{picks}

31 random students of the space `plain`, trained in the same way, had no part in the choice of the
score (`docs/tables/plain.csv`). Tau with the accuracy, with a 95 % interval over the students:
default 0.57 (0.37 to 0.76), params 0.66 (0.49 to 0.82), size 0.52 (0.34 to 0.68), capacity 0.54
(0.35 to 0.70), relation 0.12 (-0.14 to 0.37).

So the score ranks that space well, and a search of 500 candidates does not find what it ranks
highest. Ten seeds of the search end at ten students, with scores of 9.02 to 9.34. The first is the
winner of the table (63.0 %). With 2,000 candidates, eight of ten seeds end at one of two students,
with 9.34 and 9.35. These have 69.9 ± 1.5 % and 70.8 ± 1.8 % (3 trainings of each). So more
candidates (`--trials 2000`) are worth their price there ([the log, idea 44](score_log.md)).

```console
$ diswot rank --table docs/tables/plain.csv --space benchmarks/user_spaces.py:plain \\
    --target accuracy --data cifar100 --teacher resnet110 --proxies default,capacity,relation,size
```

## How this was made

`make study-default CIFAR=DIR` scores the rows and writes this page; {machine}.
"""


def _taus(form: Form, found: Sequence[Target]) -> dict[Target, float]:
    scores = {id(target.rows): [form.score(row) for row in target.rows] for target in found}
    return {target: target.tau(scores[id(target.rows)]) for target in found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=["record", "choose"])
    parser.add_argument("--study", type=Path, default=STUDY)
    parser.add_argument("--data", default="noise", help="images, as --data of diswot rank")
    parser.add_argument("--kept", type=Path, default=KEPT, help="folder of what is recorded")
    parser.add_argument("--page", type=Path, default=DOCS / "default.md")
    options = parser.parse_args()
    if options.step == "record":
        options.kept.mkdir(parents=True, exist_ok=True)
        record(options.study, options.data, options.kept)
    else:
        files.write_text(options.page, page(targets(options.study, options.kept)))


if __name__ == "__main__":
    main()

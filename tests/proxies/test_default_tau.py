"""The default score against accuracies of tables, with the settings of `diswot rank`.

`recorded/default.csv` has the default score and its parts as `diswot rank` gave them: one repeat,
batch 64 of CIFAR-100, ResNet-110. Fast tests read these rows, and score the students of
`docs/tables/plain.csv`, which were trained for this project. The slow test scores
other tables anew.
"""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import pytest

from diswot.data.registry import create_dataset
from diswot.models.registry import create_teacher
from diswot.proxies.default_score import WEIGHTS
from diswot.proxies.registry import get_proxy
from diswot.proxies.scorer import scorer
from diswot.ranking.score_table import score_one
from diswot.ranking.tables.read import read_table, sample
from diswot.spaces.registry import create_space

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "tests" / "recorded" / "default.csv"
DATA = Path(__file__).parents[3] / "shared" / "data"
ZIP = DATA / "cifar100.zip"


def tau_b(x: Sequence[float], y: Sequence[float]) -> float:
    """Kendall's tau-b, pair by pair."""
    rows = combinations(zip(x, y, strict=True), 2)
    pairs = [((a > b) - (a < b), (c > d) - (c < d)) for (a, c), (b, d) in rows]
    untied = [sum(pair[i] != 0 for pair in pairs) for i in (0, 1)]
    return sum(a * b for a, b in pairs) / (untied[0] * untied[1]) ** 0.5


def test_tau_by_hand() -> None:
    assert tau_b([1, 2, 3], [1, 2, 3]) == 1
    assert tau_b([1, 2, 3], [2, 1, 3]) == pytest.approx(1 / 3)
    assert tau_b([1, 1, 2], [1, 2, 3]) == pytest.approx(2 / (2 * 3) ** 0.5)


def recorded(space: str) -> dict[str, dict[str, float]]:
    """The recorded scores of a space, by name of the architecture."""
    with RECORDED.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.pop("space") == space]
    return {row.pop("name"): {key: float(text) for key, text in row.items()} for row in rows}


@pytest.mark.parametrize(("space", "count"), [("s0", 64), ("nasbench201", 100)])
def test_recorded_scores_are_the_weighted_sums_of_their_parts(space: str, count: int) -> None:
    rows = recorded(space)
    assert len(rows) == count
    for name, row in rows.items():
        total = sum(weight * row[part] for part, weight in WEIGHTS.items())
        assert row["default"] == pytest.approx(total, abs=1e-4), name


@pytest.mark.skipif(not DATA.exists(), reason="the tables are in ../shared/data")
@pytest.mark.parametrize(
    ("table", "space", "target", "least"),
    [
        ("s0_cifar100.csv", "s0", "distilled_acc", 0.85),
        ("nasbench201.csv.gz", "nasbench201", "cifar10_test", 0.7),
    ],
)
def test_recorded_scores_rank_the_rows_of_a_table(
    table: str, space: str, target: str, least: float
) -> None:
    scores = recorded(space)
    rows = [row for row in read_table(DATA / table, space).rows if row.name in scores]
    totals = [sum(w * scores[r.name][p] for p, w in WEIGHTS.items()) for r in rows]
    assert len(rows) == len(scores)
    assert tau_b(totals, [row.accuracies[target] for row in rows]) >= least


def test_the_default_score_ranks_the_students_of_a_users_space() -> None:
    """Measured with other images, CIFAR-100: 0.57."""
    space = f"{ROOT}/benchmarks/user_spaces.py:plain"
    rows = read_table(ROOT / "docs" / "tables" / "plain.csv", space).rows
    batch = create_dataset("digits", num_classes=10, img_size=32).batch(32)
    fixed = scorer(create_teacher("resnet56", 10), [batch], ["default"], init="kaiming")
    build = create_space(space, 10, 32)
    scores = [score_one(fixed, build, row.params, ["default"]).mean("default") for row in rows]
    assert len(rows) == 31
    assert tau_b(scores, [row.accuracies["accuracy"] for row in rows]) >= 0.45


@pytest.mark.parametrize("name", ["1-1-1", "3-5-1"])
def test_a_recorded_score_is_computed_again(name: str) -> None:
    """The capacity, which the images do not change."""
    params = dict(zip(("blocks1", "blocks2", "blocks3"), map(int, name.split("-")), strict=True))
    batch = create_dataset("noise", num_classes=100, img_size=32).batch(2)
    fixed = scorer(None, [batch], ["capacity"], init="kaiming")
    score = score_one(fixed, create_space("s0", 100), params, ["capacity"]).mean("capacity")
    assert score == pytest.approx(recorded("s0")[name]["capacity"], rel=1e-5)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training images of CIFAR-100 as a folder."""
    place = tmp_path_factory.mktemp("images")
    with zipfile.ZipFile(ZIP) as archive:
        names = [name for name in archive.namelist() if name.startswith("cifar100/train/")]
        archive.extractall(place, names)
    return place / "cifar100"


@pytest.mark.slow
@pytest.mark.skipif(not ZIP.exists(), reason="the tables and images are in ../shared/data")
@pytest.mark.parametrize(
    ("table", "space", "target", "rows", "repeats", "least"),
    [
        ("s0_cifar100.csv", "s0", "distilled_acc", 64, 5, 0.85),
        ("nasbench201.csv.gz", "nasbench201", "cifar10_test", 100, 2, 0.7),
    ],
)
def test_the_default_score_ranks_the_rows_of_a_table(
    images: Path, table: str, space: str, target: str, rows: int, repeats: int, least: float
) -> None:
    drawn = sample(read_table(DATA / table, space), rows, seed=0).rows
    data = create_dataset(str(images))
    batches = [data.batch(64, 0, repeat) for repeat in range(repeats)]
    teacher = create_teacher("resnet110", len(data.classes), data.size)
    fixed = scorer(teacher, batches, ["default"], init=get_proxy("default").init)
    build = create_space(space, len(data.classes), data.size)
    scores = [score_one(fixed, build, row.params, ["default"]).mean("default") for row in drawn]
    assert tau_b(scores, [row.accuracies[target] for row in drawn]) >= least

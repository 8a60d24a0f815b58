"""The default score against accuracies of tables, with the settings of `make study-default`."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import pytest

from diswot.data.registry import create_dataset
from diswot.models.registry import create_teacher
from diswot.proxies.registry import get_proxy
from diswot.proxies.scorer import scorer
from diswot.ranking.score_table import score_one
from diswot.ranking.tables.read import read_table, sample
from diswot.spaces.registry import create_space

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

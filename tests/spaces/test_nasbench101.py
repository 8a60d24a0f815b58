from __future__ import annotations

import csv
import gzip
import random
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
import torch.nn.functional as F
from optuna.trial import FixedTrial
from torch import Tensor, nn

from diswot.errors import UserError
from diswot.ranking.tables.read import read_table
from diswot.spaces import nasbench101
from diswot.spaces.registry import build_network

TABLE = Path(__file__).parents[3] / "shared" / "data" / "nasbench101.csv.gz"
CONV3, CONV1, POOL = nasbench101.OPERATIONS
# input -> 1 -> 2 -> output, and the input into 2 and the output
SMALL = ([[0, 1, 1, 1], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]], ["input", CONV3, POOL, "output"])
# three vertices end at the output; 1 feeds two of them
WIDE = (
    [
        [0, 1, 0, 0, 1, 0],
        [0, 0, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0, 0],
    ],
    ["input", CONV1, CONV3, POOL, CONV1, "output"],
)
BARE = ([[0, 1], [0, 0]], ["input", "output"])


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def built(cell: tuple[Any, Any], classes: int = 10) -> nn.Module:
    params = nasbench101.from_matrix(*cell)
    return build_network(lambda trial: nasbench101.build(trial, classes), params)


def shaken(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(5)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.uniform_(-0.5, 0.5, generator=generator)
            if name.endswith("running_var"):
                tensor.abs_().add_(0.5)
    return model.double().eval()


def conv_norm_relu(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    weight = state[f"{name}.0.weight"]
    x = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
    of = [state[f"{name}.1.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
    return F.batch_norm(x, *of).relu()


# Counts


def test_parameters_counted_by_hand() -> None:
    """The input alone: nine projections of 1x1, the stem and the classifier."""
    stem, head = 3 * 128 * 9 + 256, 512 * 10 + 10
    pairs = [(128, 128)] * 3 + [(128, 256)] + [(256, 256)] * 2 + [(256, 512)] + [(512, 512)] * 2
    assert parameters(built(BARE)) == stem + head + sum(a * b + 2 * b for a, b in pairs)


def test_channels_are_shared_among_the_last_vertices() -> None:
    cell = built(WIDE).stack1[0]
    assert cell.widths == {1: 43, 2: 43, 3: 43, 4: 42, 6: 128}
    assert cell.operations["2"][0].weight.shape == (43, 43, 3, 3)
    assert cell.projections["4"][0].weight.shape == (42, 128, 1, 1)
    assert set(cell.projections) == {"1", "4"}


def test_a_vertex_is_as_wide_as_the_widest_it_feeds() -> None:
    edges = frozenset({(0, 1), (1, 2), (1, 3), (2, 6), (3, 4), (4, 6), (3, 5), (5, 6)})
    assert nasbench101.vertex_widths(edges, 128) == {1: 43, 2: 43, 3: 43, 4: 43, 5: 42, 6: 128}


@pytest.mark.parametrize("cell", [SMALL, WIDE, BARE])
def test_the_formula_counts_what_is_built(cell: tuple[Any, Any]) -> None:
    params = nasbench101.from_matrix(*cell)
    edges = frozenset(nasbench101._pair(params[f"edge_{k}"]) for k in range(1, 10))
    operations = {v: params[f"op_{v}"] for v in range(1, 6)}
    assert nasbench101.parameters(edges, operations) == parameters(built(cell))


def test_parameters_are_those_of_the_benchmark() -> None:
    if not TABLE.exists():
        pytest.skip(f"the accuracy table {TABLE} is absent")
    with gzip.open(TABLE, "rt", newline="") as file:
        counts = {row["hash"]: int(row["params"]) for row in csv.DictReader(file)}
    table = read_table(TABLE, "nasbench101")
    for row in random.Random(0).sample(table.rows, 60):
        with torch.device("meta"):
            model = build_network(lambda trial: nasbench101.build(trial, 10), row.params)
        assert parameters(model) == counts[row.name], row


# The forward pass


def test_a_cell_by_hand() -> None:
    cell = shaken(built(SMALL).stack1[0])
    state = cell.state_dict()
    x = torch.randn(2, 128, 6, 6, generator=torch.Generator().manual_seed(0)).double()
    first = conv_norm_relu(state, "operations.1", conv_norm_relu(state, "projections.1", x))
    second = F.max_pool2d(first + conv_norm_relu(state, "projections.2", x), 3, 1, 1)
    expected = second + conv_norm_relu(state, "projections.6", x)
    torch.testing.assert_close(cell(x), expected)


def test_a_cell_of_several_ends_by_hand() -> None:
    cell = shaken(built(WIDE).stack1[0])
    state = cell.state_dict()
    x = torch.randn(2, 128, 6, 6, generator=torch.Generator().manual_seed(0)).double()
    first = conv_norm_relu(state, "operations.1", conv_norm_relu(state, "projections.1", x))
    ends = [
        conv_norm_relu(state, "operations.2", first[:, :43]),
        F.max_pool2d(first, 3, 1, 1),
        conv_norm_relu(state, "operations.4", conv_norm_relu(state, "projections.4", x)),
    ]
    torch.testing.assert_close(cell(x), torch.cat(ends, 1))


def test_stages_end_in_named_modules() -> None:
    model, shapes = built(SMALL), {}
    for name, module in model.named_children():
        module.register_forward_hook(lambda *a, name=name: shapes.update({name: a[2].shape[1:]}))
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert [tuple(shapes[f"stack{k}"]) for k in (1, 2, 3)] == [
        (128, 32, 32),
        (256, 16, 16),
        (512, 8, 8),
    ]


# Parameters and matrices


def to_matrix(params: dict[str, str]) -> tuple[list[list[int]], list[str]]:
    """Return the matrix and the operations of parameters, without vertices that no edge meets."""
    edges = {tuple(map(int, params[f"edge_{k}"].split("-"))) for k in range(1, 10)}
    vertices = sorted({vertex for edge in edges for vertex in edge})
    inner = [params[f"op_{vertex}"] for vertex in vertices[1:-1]]
    matrix = [[int((i, j) in edges) for j in vertices] for i in vertices]
    return matrix, ["input", *inner, "output"]


@pytest.mark.parametrize("cell", [SMALL, WIDE, BARE])
def test_a_matrix_survives_the_round_trip(cell: tuple[Any, Any]) -> None:
    params = nasbench101.from_matrix(*cell)
    assert len(params) == 14
    assert to_matrix(params) == (cell[0], cell[1])


def test_what_is_on_no_path_is_not_built() -> None:
    matrix = [[0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
    dead = (matrix, ["input", CONV3, CONV1, "output"])
    alive = ([[0, 1, 0], [0, 0, 1], [0, 0, 0]], ["input", CONV3, "output"])
    assert parameters(built(dead)) == parameters(built(alive))


def test_a_numbering_is_found_that_has_the_count() -> None:
    """Two ends share 128 channels with a third; who takes the rest depends on the numbering."""
    matrix = [[0, 1, 1, 1, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 1], [0, 0, 0, 0, 1], [0] * 5]
    cells = [["input", *ops, "output"] for ops in ((CONV3, POOL, POOL), (POOL, POOL, CONV3))]
    counts = [parameters(built((matrix, ops))) for ops in cells]
    assert counts[0] != counts[1]
    params = nasbench101.from_matrix(matrix, cells[0], counts[1])
    model = build_network(lambda trial: nasbench101.build(trial, 10), params)
    assert parameters(model) == counts[1]
    same = nasbench101.from_matrix(matrix, cells[0])
    assert nasbench101.from_matrix(matrix, cells[0], counts[0]) == same
    assert nasbench101.from_matrix(matrix, cells[0], 7) == same


@pytest.mark.parametrize(
    ("matrix", "operations", "part"),
    [
        ([[0]], ["input"], "2 to 7"),
        ([[0, 1], [0]], ["input", "output"], "square"),
        ([[0, 1], [1, 0]], ["input", "output"], "upper triangular"),
        ([[0, 0], [0, 0]], ["input", "output"], "no path"),
        ([[0, 1], [0, 0]], ["input", CONV3, "output"], "as many operations"),
        ([[0, 1, 0], [0, 0, 1], [0] * 3], ["input", "conv5x5", "output"], "'conv5x5'"),
        (
            [[int(j > i) for j in range(5)] for i in range(5)],
            ["input", CONV3, CONV3, CONV3, "output"],
            "at most 9 edges, not 10",
        ),
    ],
)
def test_what_is_no_cell(matrix: Any, operations: list[str], part: str) -> None:
    with pytest.raises(UserError, match=part):
        nasbench101.from_matrix(matrix, operations)


def test_a_draw_without_a_path_is_refused() -> None:
    params = nasbench101.from_matrix(*SMALL) | {f"edge_{k}": "0-1" for k in range(1, 10)}
    with pytest.raises(UserError, match="no path"):
        nasbench101.build(FixedTrial(params))


def test_random_cells_build_and_run() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    ran = 0
    for _ in range(12):
        trial = study.ask()
        try:
            model = nasbench101.build(trial, num_classes=7)
        except UserError:
            continue
        assert model(torch.randn(2, 3, 8, 8)).shape == (2, 7)
        ran += 1
    assert ran >= 4

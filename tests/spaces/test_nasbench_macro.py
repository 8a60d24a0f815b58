from __future__ import annotations

import csv
import gzip
import random
from pathlib import Path

import pytest
import torch
from torch import nn

from diswot.costs.counts import count_depth, count_macs, count_params
from diswot.errors import UserError
from diswot.observation.observe import observe
from diswot.spaces import nasbench_macro
from diswot.spaces.registry import build_network, create_space

TABLE = Path(__file__).parents[3] / "shared" / "data" / "nasbench_macro.csv.gz"


def network(arch: str, classes: int = 10) -> nn.Module:
    return build_network(create_space("nasbench_macro", classes), nasbench_macro.from_arch(arch))


@pytest.mark.parametrize(
    ("arch", "params", "macs"),
    [("00000010", 791594, 14115328), ("00000012", 1623082, 27312640)],
)
def test_figures_of_published_rows(arch: str, params: int, macs: int) -> None:
    model = network(arch)

    assert (count_params(model), count_macs(model, (3, 32, 32))) == (params, macs)


def test_identity_is_no_layer_but_where_the_shape_changes() -> None:
    """Stem 864 + 64; 1x1 convolutions 2,048 + 128, 8,192 + 256, 32,768 + 512; head as written."""
    model = network("00000000")

    assert count_depth(model) == 6
    head = 256 * 1280 + 2 * 1280 + 1280 * 10 + 10
    assert count_params(model) == 928 + 2176 + 8448 + 33280 + head


def test_an_inverted_residual_adds_its_input_where_it_keeps_the_shape() -> None:
    model = network("11000000").eval()
    block = model.stage1[1]
    nn.init.zeros_(block.residual[-1].weight)
    x = torch.randn(2, 64, 4, 4, generator=torch.Generator().manual_seed(0))

    assert torch.equal(block(x), x)
    first = model.stage1[0]
    nn.init.zeros_(first.residual[-1].weight)
    assert first(torch.ones(2, 32, 8, 8)).abs().sum() == 0


def test_stages() -> None:
    seen = observe(network("21021021"), torch.randn(2, 3, 32, 32), torch.tensor([0, 1]))

    assert [tuple(stage.shape[1:]) for stage in seen.stages] == [
        (32, 32, 32),
        (64, 16, 16),
        (128, 8, 8),
        (1280, 4, 4),
    ]


@pytest.mark.parametrize(
    ("text", "part"), [("0000000", "8 digits, not 7"), ("00000030", "0, 1 or 2, not '3'")]
)
def test_what_is_no_architecture(text: str, part: str) -> None:
    with pytest.raises(UserError, match=part):
        nasbench_macro.from_arch(text)


@pytest.mark.slow
def test_figures_of_the_table() -> None:
    """Parameters of all rows, multiply-adds of a hundred."""
    if not TABLE.exists():
        pytest.skip("the table of NAS-Bench-Macro is absent")
    with gzip.open(TABLE, "rt") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        with torch.device("meta"):
            assert count_params(network(row["arch"])) == int(row["params"]), row["arch"]
    for row in random.Random(0).sample(rows, 100):
        assert count_macs(network(row["arch"]), (3, 32, 32)) == int(row["flops"]), row["arch"]
    assert len(rows) == 2187

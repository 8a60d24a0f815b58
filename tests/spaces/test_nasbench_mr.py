from __future__ import annotations

import csv
import gzip
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diswot.costs.counts import count_macs, count_params
from diswot.errors import UserError
from diswot.observation.observe import observe
from diswot.spaces import nasbench_mr
from diswot.spaces.nasbench_mr import Fusion
from diswot.spaces.registry import build_network, create_space

TABLE = Path(__file__).parents[3] / "shared" / "data" / "nasbench_mr.csv.gz"
LEAST = "16-16-1-1-16-1-1-1-16-16-1-1-1-1-16-16-16-1-1-1-1-1-16-16-16-16-16"
MIXED = "16-16-1-1-16-3-3-3-112-64-2-4-2-2-80-80-64-1-3-1-4-1-128-16-16-64-128"
FIGURES = {LEAST: (82658, 40917842), MIXED: (6623138, 4903313714)}


def network(text: str, classes: int = 50) -> nn.Module:
    return build_network(create_space("nasbench_mr", classes), nasbench_mr.from_arch(text))


def published_flops(model: nn.Module) -> int:
    """Multiply-adds at 128 pixels, 2 for each output of a norm, 1 for each logit."""
    outputs = 0

    def add(module: nn.Module, inputs: Any, output: Tensor) -> None:
        nonlocal outputs
        outputs += output.numel()

    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    handles = [norm.register_forward_hook(add) for norm in norms]
    macs = count_macs(model, (3, 128, 128))
    for handle in handles:
        handle.remove()
    return macs + 2 * outputs + 50


@pytest.mark.parametrize("text", FIGURES)
def test_figures_of_published_rows(text: str) -> None:
    model = network(text)

    assert (count_params(model), published_flops(model)) == FIGURES[text]


def test_branches_take_their_neighbours_only() -> None:
    """Three branches before, four after, all weights one, no norms: sums of the three before."""
    fusion = Fusion([1, 1, 1], [1, 1, 1, 1])
    for path in fusion.paths.values():
        nn.init.ones_(path[0].weight)
        path[1] = nn.Identity()
    before = [torch.full((1, 1, side, side), float(v)) for side, v in ((8, 1), (4, 10), (2, 100))]
    after = fusion(before)

    assert [tuple(each.shape[2:]) for each in after] == [(8, 8), (4, 4), (2, 2), (1, 1)]
    assert after[0][0, 0, 4, 4] == 9 * 1 + 10
    assert after[1][0, 0, 1, 1] == 9 * 1 + 9 * 10 + 100
    own = 4 * 100
    assert after[2][0, 0].tolist() == [[4 * 10 + own, 6 * 10 + own], [6 * 10 + own, 9 * 10 + own]]
    assert after[3][0, 0].tolist() == [[25 * 10 + 4 * own]]


def test_maps() -> None:
    seen = observe(network(MIXED), torch.randn(2, 3, 64, 64), torch.tensor([0, 1]))

    assert tuple(seen.last.shape[1:]) == (128, 2, 2)
    assert [stage.shape[2] for stage in seen.stages] == [32, 16, 8, 4, 2]


def test_a_network_for_segmentation_merges_at_the_finest_size() -> None:
    """The layers are those of the network for classification, and so are their weights."""
    plain = network(MIXED, 19)
    dense = build_network(create_space("nasbench_mr_seg", 19), nasbench_mr.from_arch(MIXED))
    weights = plain.state_dict()
    weights["classifier.weight"] = weights["classifier.weight"][..., None, None]
    dense.load_state_dict(weights)
    images = torch.randn(2, 3, 64, 64)

    assert dense(images).shape == (2, 19, 16, 16)
    seen = observe(dense, images, torch.randint(19, (2, 64, 64)))
    assert tuple(seen.last.shape[1:]) == (128, 16, 16)
    assert [stage.shape[2] for stage in seen.stages] == [32, 16, 8, 4, 2, 16]


def test_images_whose_size_is_no_multiple_of_32() -> None:
    assert network(LEAST)(torch.randn(2, 3, 50, 50)).shape == (2, 50)


def test_notation() -> None:
    params = nasbench_mr.from_arch(MIXED)

    assert len(params) == 27
    assert [params[f"modules_{s}"] for s in (1, 2, 3, 4)] == [1, 3, 2, 1]
    assert [params[f"blocks_4_{b}"] for b in (1, 2, 3, 4)] == [3, 1, 4, 1]
    assert [params[f"width_2_{b}"] for b in (1, 2)] == [112, 64]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("16-16-1", "27 numbers, not 3"),
        (LEAST.replace("16-16-1-1", "16-16-5-1", 1), "modules_1 is 5; known: 1, 2, 3, 4"),
        (LEAST.replace("16-16", "16-20", 1), "stem_2 is 20; known: 8, 16, 24"),
        (LEAST[:-2] + "x", "last is x; known: 8"),
    ],
)
def test_what_is_no_architecture(text: str, part: str) -> None:
    with pytest.raises(UserError, match=part):
        nasbench_mr.from_arch(text)


@pytest.mark.slow
def test_figures_of_the_table() -> None:
    """Parameters of all rows, FLOPs of twenty."""
    if not TABLE.exists():
        pytest.skip("the table of NAS-Bench-MR is absent")
    with gzip.open(TABLE, "rt") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        with torch.device("meta"):
            params = count_params(network(row["embedding"]))
        assert params == round(float(row["params"]) * 1e6), row["embedding"]
    for row in random.Random(0).sample(rows, 20):
        flops = published_flops(network(row["embedding"]))
        assert flops == round(float(row["flops"]) * 1e9), row["embedding"]
    assert len(rows) == 1002

from __future__ import annotations

import itertools
from typing import Any

import pytest
import timm
import torch

from diswot.costs.counts import count_params
from diswot.errors import UserError
from diswot.observation.observe import observe
from diswot.spaces import pit
from diswot.spaces.registry import build_network

TINY: dict[str, Any] = {
    "base_dim": 32,
    "mlp_ratio": 4,
    "depth_1": 2,
    "depth_2": 6,
    "depth_3": 4,
    "heads": "2-4-8",
}


def built(params: dict[str, Any] = TINY, classes: int = 10, size: int = 32) -> torch.nn.Module:
    return build_network(lambda trial: pit.build(trial, classes, size), params)


@pytest.mark.parametrize(("name", "base"), [("pit_ti_224", 32), ("pit_xs_224", 48)])
def test_the_published_networks_are_of_the_space(name: str, base: int) -> None:
    published = timm.create_model(name, num_classes=1000)
    ours = built(TINY | {"base_dim": base}, 1000, 224)
    shapes = [{k: v.shape for k, v in m.state_dict().items()} for m in (published, ours)]
    assert shapes[0] == shapes[1]
    ours.load_state_dict(published.state_dict())
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), published.eval()(x))


@pytest.mark.parametrize(
    ("size", "patches"), [(16, (2, 1)), (32, (4, 2)), (64, (8, 4)), (224, (16, 8)), (384, (16, 8))]
)
def test_patches_shrink_with_the_image(size: int, patches: tuple[int, int]) -> None:
    assert pit.patches(size) == patches
    assert built(size=size)(torch.randn(1, 3, size, size)).shape == (1, 10)


def test_stages_pool_tokens_and_widen() -> None:
    seen = observe(built(), torch.randn(2, 3, 32, 32), torch.tensor([0, 1]))
    assert [tuple(stage.shape[1:]) for stage in seen.stages] == [
        (64, 15, 15),
        (128, 8, 8),
        (256, 4, 4),
    ]


def test_heads_are_those_of_the_benchmark_and_those_of_multiples() -> None:
    """All rising triples of 2, 4, 8; and multiples 1 and 2, twice, of 2, 3, 4."""
    published = {(a, b, c) for a in (2, 4, 8) for b in (2, 4, 8) for c in (2, 4, 8) if a <= b <= c}
    multiples = {(a, a * b, a * b * c) for a in (2, 3, 4) for b in (1, 2) for c in (1, 2)}
    assert set(pit.HEADS) == {"-".join(map(str, each)) for each in published | multiples}


def test_the_notation_of_auto_prox() -> None:
    arch = {"base_dim": 24, "mlp_ratio": 8, "depth": [1, 6, 4], "num_heads": [2, 8, 8]}
    params = pit.from_arch(arch)
    model = built(params, 100, 224)

    assert [len(stage.blocks) for stage in model.transformers] == [1, 6, 4]
    widths = [stage.blocks[0].mlp.fc1.weight.shape for stage in model.transformers]
    assert widths == [(384, 48), (1536, 192), (1536, 192)]
    assert [stage.blocks[0].attn.num_heads for stage in model.transformers] == [2, 8, 8]
    assert count_params(model) == parameters(**arch)


def parameters(
    base_dim: int, mlp_ratio: int, depth: list[int], num_heads: list[int], classes: int = 100
) -> int:
    """Count, by the paper's formulas, patches of 16 with stride 8 at 224 pixels: 27 x 27."""
    width = [base_dim * heads for heads in num_heads]
    patches = width[0] * (3 * 16 * 16 + 1) + width[0] * 27 * 27 + width[0]
    layers = sum(
        count * ((4 + 2 * mlp_ratio) * w * w + (3 + 1 + mlp_ratio + 1 + 4) * w)
        for count, w in zip(depth, width, strict=True)
    )
    pools = sum(b * (3 * 3 + 1) + a * b + b for a, b in itertools.pairwise(width))
    return patches + layers + pools + 2 * width[-1] + width[-1] * classes + classes


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"base_dim": 20}, "base_dim is 20; known: 16, 24, 32, 40, 48"),
        ({"mlp_ratio": 5}, "mlp_ratio is 5; known: 2, 3, 4, 6, 8"),
        ({"depth": [2, 5, 2]}, "depth_2 is 5; known: 4, 6, 8"),
        ({"depth": [2, 4]}, "depth has 2 values for 3 stages"),
        ({"num_heads": [8, 4, 4]}, "num_heads is '8-4-4'; known: 2-2-2"),
    ],
)
def test_what_a_published_row_cannot_be(change: dict[str, Any], part: str) -> None:
    arch = {"base_dim": 24, "mlp_ratio": 8, "depth": [1, 6, 4], "num_heads": [2, 8, 8]}
    with pytest.raises(UserError, match=part):
        pit.from_arch(arch | change)


def test_a_missing_part_of_a_published_row() -> None:
    with pytest.raises(UserError, match="lacks 'num_heads'"):
        pit.from_arch({"base_dim": 24, "mlp_ratio": 8, "depth": [1, 6, 4]})

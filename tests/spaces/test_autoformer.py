from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
import torch.nn.functional as F

from diswot.errors import UserError
from diswot.observation.observe import observe
from diswot.spaces import autoformer
from diswot.spaces.registry import build_network

TABLE = Path(__file__).parents[3] / "shared" / "data" / "vit_autoformer.json"
ARCH: dict[str, Any] = {
    "hidden_dim": 192,
    "mlp_ratio": [3.5, 4.0] * 6,
    "depth": 12,
    "num_heads": [3, 4, 4] * 4,
}


def built(arch: dict[str, Any] = ARCH, classes: int = 10, size: int = 32) -> torch.nn.Module:
    params = autoformer.from_arch(arch)
    return build_network(lambda trial: autoformer.build(trial, classes, size), params)


def test_parameters_counted_by_hand() -> None:
    d, total = 192, 0
    for heads, ratio in zip(ARCH["num_heads"], ARCH["mlp_ratio"], strict=True):
        inner, hidden = 64 * heads, int(192 * ratio)
        total += 3 * inner * (d + 1) + inner * d + d  # q, k, v, and the projection
        total += d * hidden + hidden + hidden * d + d + 4 * d  # the MLP, and two norms
    total += 3 * 4 * 4 * d + d + 64 * d  # 4x4 patches, and the positions of 8 x 8 of them
    total += 2 * d + d * 10 + 10
    assert sum(p.numel() for p in built().parameters()) == total


@pytest.mark.parametrize(("size", "patch"), [(16, 2), (32, 4), (48, 4), (64, 8), (224, 16)])
def test_the_patch_leaves_at_least_eight_a_side(size: int, patch: int) -> None:
    assert autoformer.patch_size(size) == patch
    model = built(size=size)
    assert model.pos_embed.shape[1] == (size // patch) ** 2
    assert model(torch.randn(1, 3, size, size)).shape == (1, 10)


def test_a_layer_by_hand() -> None:
    block = built().blocks[1].eval().double()
    x = torch.randn(2, 5, 192, generator=torch.Generator().manual_seed(0)).double()
    state = block.state_dict()
    y = F.layer_norm(x, (192,), state["norm1.weight"], state["norm1.bias"], block.norm1.eps)
    qkv = y @ state["attn.qkv.weight"].T + state["attn.qkv.bias"]
    q, k, v = qkv.view(2, 5, 3, 4, 64).permute(2, 0, 3, 1, 4)
    mixed = ((q @ k.mT) / 8).softmax(-1) @ v
    joined = mixed.transpose(1, 2).reshape(2, 5, 256)
    x1 = x + joined @ state["attn.proj.weight"].T + state["attn.proj.bias"]
    y = F.layer_norm(x1, (192,), state["norm2.weight"], state["norm2.bias"], block.norm2.eps)
    y = F.gelu(y @ state["mlp.fc1.weight"].T + state["mlp.fc1.bias"])
    expected = x1 + y @ state["mlp.fc2.weight"].T + state["mlp.fc2.bias"]
    torch.testing.assert_close(block(x), expected)


def test_logits_are_of_the_mean_over_patches() -> None:
    model = built().eval()
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    tokens = model.norm(model.blocks(model.patch_embed(x) + model.pos_embed))
    torch.testing.assert_close(model(x), model.head(tokens).mean(1))


def test_it_can_be_observed() -> None:
    seen = observe(built(), torch.randn(2, 3, 32, 32), torch.tensor([0, 1]))
    assert seen.logits.shape == (2, 10)
    assert seen.last.shape == (2, 192, 8, 8)


def to_arch(params: dict[str, Any]) -> dict[str, Any]:
    """Return the architecture of parameters in the benchmark's form."""
    layers = range(1, params["depth"] + 1)
    return {
        "hidden_dim": params["hidden_dim"],
        "depth": params["depth"],
        "num_heads": [params[f"heads_{i}"] for i in layers],
        "mlp_ratio": [params[f"ratio_{i}"] for i in layers],
    }


def test_an_architecture_survives_the_round_trip() -> None:
    params = autoformer.from_arch(ARCH)
    assert to_arch(params) == ARCH
    assert len(params) == 2 + 2 * 12
    texts = ARCH | {"hidden_dim": "192", "depth": "12"}
    assert autoformer.from_arch(texts) == params


def test_every_published_architecture_is_of_the_space() -> None:
    if not TABLE.exists():
        pytest.skip(f"the accuracy table {TABLE} is absent")
    rows = json.loads(TABLE.read_text())
    for row in rows:
        params = autoformer.from_arch(row["arch"])
        assert to_arch(params) == row["arch"]
        with torch.device("meta"):
            build_network(autoformer.build, params)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"depth": 13}, "num_heads has 12 values for 13 layers"),
        ({"mlp_ratio": [4.0] * 11}, "mlp_ratio has 11 values"),
        ({"num_heads": [5] * 12}, "num_heads has 5; known: 3, 4"),
        ({"hidden_dim": 200}, "hidden_dim 200"),
        ({"depth": 2, "mlp_ratio": [4.0] * 2, "num_heads": [3] * 2}, "depth 2"),
        ({"num_heads": None}, "autoformer lacks"),
        ({"depth": "many"}, "autoformer lacks"),
    ],
)
def test_what_is_no_architecture(changes: dict[str, Any], part: str) -> None:
    with pytest.raises(UserError, match=part):
        autoformer.from_arch(ARCH | changes)


def test_a_missing_key_is_named() -> None:
    with pytest.raises(UserError, match="hidden_dim"):
        autoformer.from_arch({key: value for key, value in ARCH.items() if key != "hidden_dim"})


def test_what_is_asked_for_depends_on_the_depth() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = set()
    for _ in range(6):
        trial = study.ask()
        with torch.device("meta"):
            model = autoformer.build(trial)
        depth = trial.params["depth"]
        assert len(model.blocks) == depth and len(trial.params) == 2 + 2 * depth
        seen.add(depth)
    assert len(seen) > 1

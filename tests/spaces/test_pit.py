from __future__ import annotations

from typing import Any

import optuna
import pytest
import timm
import torch

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
    "heads_1": 2,
    "growth_2": 2,
    "growth_3": 2,
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


def test_random_networks_build_and_run() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(4):
        trial = study.ask()
        model = pit.build(trial, num_classes=7, img_size=32)
        assert set(trial.params) == set(TINY)
        assert model(torch.randn(1, 3, 32, 32)).shape == (1, 7)


def test_a_value_outside_the_space_is_refused() -> None:
    with pytest.raises(UserError, match="base_dim = 33"):
        built(TINY | {"base_dim": 33})


def test_the_size_counts_every_choice() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trial = study.ask()
    with torch.device("meta"):
        pit.build(trial)
    size = 1
    for distribution in trial.distributions.values():
        size *= len(distribution.choices)
    assert size == pit.SIZE

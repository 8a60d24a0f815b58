from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from toys import seeded

from diswot.data.dataset import Batch
from diswot.data.registry import create_dataset
from diswot.models.initialization import fresh
from diswot.models.registry import create_teacher
from diswot.observation.observe import observe
from diswot.proxies.candidate import Candidate
from diswot.proxies.default_score import (
    WEIGHTS,
    capacity,
    default,
    detail,
    effective_rank,
)
from diswot.proxies.first_block import first_block_roughness
from diswot.proxies.scorer import NotScored, scorer
from diswot.spaces import nasbench201
from diswot.spaces.registry import build_network, create_space

PARTS = ["default", *WEIGHTS]
SHORTCUT = "|nor_conv_3x3~0|+|skip_connect~0|nor_conv_3x3~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"
CHAIN = "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|none~0|none~1|nor_conv_3x3~2|"
POOLED = "|avg_pool_3x3~0|+|none~0|nor_conv_3x3~1|+|none~0|none~1|nor_conv_3x3~2|"


def scored(text: str) -> dict[str, float]:
    batch = create_dataset("noise", num_classes=10, img_size=16).batch(16)
    fixed = scorer(create_teacher("resnet20", 10), [batch], init="kaiming")
    build = create_space("nasbench201", 10)
    found = fixed.score(
        fixed.students(partial(build_network, build, nasbench201.from_string(text))), PARTS
    )
    return {name: value for name, (value,) in found.items()}


def test_default_is_the_sum_of_its_parts() -> None:
    found = scored(CHAIN)
    gaps = found["detail"] + 0.25 * found["directness"]
    held = found["capacity"] + 0.3 * found["effective_rank"]
    assert found["default"] == pytest.approx(held + gaps)
    assert found["directness"] < 0


def test_what_each_part_is_for() -> None:
    chain, shortcut, pooled = (scored(text) for text in (CHAIN, SHORTCUT, POOLED))
    assert chain["capacity"] == shortcut["capacity"] > pooled["capacity"]
    assert chain["effective_rank"] > pooled["effective_rank"]
    assert (chain["directness"], shortcut["directness"], pooled["directness"]) == (-3, 0, -2)
    assert pooled["detail"] < chain["detail"] - 0.5
    assert pooled["default"] < chain["default"] < shortcut["default"]


def test_students_with_the_first_block_of_the_teacher_have_no_gap() -> None:
    batch = create_dataset("noise", num_classes=10, img_size=16).batch(8)
    fixed = scorer(create_teacher("resnet56", 10), [batch], init="kaiming", seed=3)
    build = create_space("s0", 10)
    for blocks in ((1, 1, 1), (5, 1, 3)):
        params = {f"blocks{i}": count for i, count in enumerate(blocks, 1)}
        found = fixed.score(fixed.students(partial(build_network, build, params)), ["detail"])
        assert found["detail"] == [0]


# Capacity and effective rank by hand


def test_capacity_by_hand() -> None:
    """Of an 8 x 8 image: weights and activations of the convolutions; the classifier has no map."""
    model = seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.Conv2d(6, 12, 3, stride=2, padding=1, groups=3),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(12, 5),
        )
    )
    layers = [(6 * 3 * 9, 6 * 64), (12 * 2 * 9, 12 * 16)]
    expected = math.log(sum(w**0.6 * a**0.2 for w, a in layers))
    assert capacity(candidate(model)) == pytest.approx(expected)


def test_layers_that_no_image_reaches_have_no_capacity() -> None:
    def build(first: float) -> nn.Module:
        return nn.Sequential(
            growing(first)[0], nn.Conv2d(3, 4, 1), *growing(1)[1:3], nn.Linear(4, 5)
        )

    assert capacity(candidate(seeded(lambda: build(0)))) == -math.inf
    assert capacity(candidate(seeded(lambda: build(1)))) > 0


@pytest.mark.parametrize("batch_first", [True, False])
def test_capacity_of_fused_attention(batch_first: bool) -> None:
    """The four projections of `nn.MultiheadAttention` count as two linear layers would."""

    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=batch_first)
            self.embed, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.embed(x).flatten(2).transpose(1, 2)
            if not batch_first:
                tokens = tokens.transpose(0, 1)
            mixed = self.attention(tokens, tokens, tokens)[0]
            return self.head(mixed.mean(1 if batch_first else 0))

    layers = [(8 * 3 * 16, 8 * 4), (3 * 8 * 8, 3 * 8 * 4), (8 * 8, 8 * 4)]
    expected = math.log(sum(w**0.6 * a**0.2 for w, a in layers))
    assert capacity(candidate(seeded(Attends))) == pytest.approx(expected)


def test_effective_rank_by_hand() -> None:
    """Three channels of the same variances, of which two are equal: shares 2/3, 1/3 and 0."""

    plus, minus = torch.tensor([1.0, -1, 1, -1]), torch.tensor([1.0, 1, -1, -1])
    images = torch.zeros(4, 3, 8, 8)
    images[:, 0], images[:, 1] = plus[:, None, None], minus[:, None, None]
    model = growing(1)
    with torch.no_grad():
        model[0][0].scale.weight[:, :, 0, 0] = torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    found = effective_rank(Candidate(model, None, Batch(images, torch.arange(4))))
    assert found == pytest.approx(math.log(3) - 2 / 3 * math.log(2), abs=1e-6)


def test_default_inherited_adds_the_distance_to_the_teacher() -> None:
    batch = create_dataset("noise", num_classes=10, img_size=16).batch(16)
    build = partial(create_teacher, "resnet20", 10)
    names = ["default", "default_inherited", "kd_standardised"]
    fixed = scorer(build(), [batch], names, init="kaiming", trained_teacher=True)
    found = {name: value for name, (value,) in fixed.score(fixed.students(build), names).items()}
    assert found["kd_standardised"] < 0  # a proxy is minus the distance
    expected = found["default"] + 2 * found["kd_standardised"]
    assert found["default_inherited"] == pytest.approx(expected)


# Gaps by hand


def candidate(model: nn.Module, roughness: float | None = None, size: int = 4) -> Candidate:
    images = torch.randn(size, 3, 8, 8, generator=torch.Generator().manual_seed(size))
    batch = Batch(images, torch.arange(size) % 5)
    return Candidate(model, observe(model, *batch), batch, teacher_roughness=roughness)


class Grow(nn.Module):
    """Multiplies by a number."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.scale = nn.Conv2d(3, 3, 1, bias=False)
        nn.init.zeros_(self.scale.weight)
        with torch.no_grad():
            self.scale.weight[range(3), range(3)] = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.scale(x)


def growing(*factors: float) -> nn.Module:
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
    blocks = nn.Sequential(*map(Grow, factors))
    return seeded(lambda: nn.Sequential(blocks, *head, nn.Linear(3, 5)))


def test_gap_to_a_teacher() -> None:
    params = {f"blocks{i}": 1 for i in (1, 2, 3)}
    model = fresh(partial(build_network, create_space("s0", 5, 8), params), "kaiming", 0)
    own = first_block_roughness(model, candidate(model).batch.images, 0)
    assert own is not None
    assert detail(candidate(model, own - 1)) == 0
    assert detail(candidate(model, own + 9)) == pytest.approx(-9)


def test_default_needs_the_teacher_itself() -> None:
    batch = create_dataset("noise", num_classes=5, img_size=8).batch(4)
    fixed = scorer(create_teacher("resnet20", 5), [batch])
    model = fixed.fresh(
        partial(build_network, create_space("s0", 5), {f"blocks{i}": 1 for i in (1, 2, 3)})
    )
    blind = Candidate(model, fixed.teachers[0], batch)
    with pytest.raises(ValueError, match="give the teacher itself"):
        default(blind)


def test_a_student_that_begins_with_nothing_is_lowest() -> None:
    nothing = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
    batch = create_dataset("noise", num_classes=5, img_size=8).batch(4)
    fixed = scorer(create_teacher("resnet20", 5), [batch])
    build = partial(build_network, create_space("nasbench201", 5), nasbench201.from_string(nothing))
    (outcome,) = fixed.outcomes([fixed.fresh(build)], ["default"])["default"]
    assert isinstance(outcome, NotScored) and outcome.value == -math.inf

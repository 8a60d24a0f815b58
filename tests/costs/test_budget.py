from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import toys
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from diswot.costs.budget import Budget, Costs, show_costs
from diswot.costs.counts import count_depth, count_macs, count_params, count_trainable
from diswot.errors import UserError
from diswot.utils.units import parse_count, show_count

SHAPE = (3, 8, 8)
PATCHES, WIDTH = 16, 8
ATTENTION = PATCHES * WIDTH * 3 * WIDTH + 2 * PATCHES**2 * WIDTH


class Patches(nn.Module):
    """16 patches of 2 x 2 as tokens of width 8, through a layer, their mean to 5 classes."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.patches, self.layer, self.head = nn.Conv2d(3, 8, 2, 2), layer, nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.layer(self.patches(images).flatten(2).transpose(1, 2)).mean(1))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.attention(tokens, tokens, tokens)[0]


class Products(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    def forward(self, tokens: Tensor) -> Tensor:
        return scaled_dot_product_attention(*self.qkv(tokens)[:, None].chunk(3, -1))[:, 0]


def patches(layer: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: Patches(layer())


CONV = PATCHES * 8 * 3 * 2 * 2
HEAD = 8 * 5


@pytest.mark.parametrize(
    ("build", "params", "macs", "depth"),
    [
        (lambda: nn.Conv2d(3, 4, 3, padding=1), 4 * 28, 64 * 4 * 27, 1),
        (lambda: nn.Conv2d(3, 6, 3, 2, 1, groups=3, bias=False), 54, 16 * 6 * 9, 1),
        (lambda: nn.ConvTranspose2d(3, 4, 2, 2, bias=False), 48, 64 * 48, 1),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), 965, 960, 1),
        (lambda: nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.AvgPool2d(2)), 6, 0, 0),
        (toys.LinearHead, 108 + 8 + 216 + 12 + 35, 64 * 108 + 16 * 216 + 30, 3),
        (patches(Attention), 104 + 288 + 45, CONV + ATTENTION + PATCHES * 64 + HEAD, 3),
        (patches(Products), 104 + 216 + 45, CONV + ATTENTION + HEAD, 3),
        (
            patches(lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)),
            104 + 288 + 2 * 16 + 144 + 136 + 45,
            CONV + ATTENTION + PATCHES * (64 + 2 * 128) + HEAD,
            5,
        ),
    ],
)
def test_counts_by_hand(build: Callable[[], nn.Module], params: int, macs: int, depth: int) -> None:
    model = build()

    assert (count_params(model), count_macs(model, SHAPE), count_depth(model)) == (
        params,
        macs,
        depth,
    )


def test_macs_are_of_one_image_of_that_size() -> None:
    model = nn.Conv2d(1, 2, 3, bias=False)

    assert count_macs(model, (1, 5, 9)) == 3 * 7 * 2 * 9


def test_all_parameters_count_and_shared_ones_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False), nn.Linear(4, 1))
    model[1].weight = model[0].weight
    model[2].requires_grad_(False)

    assert (count_params(model), count_trainable(model)) == (16 + 5, 16)
    assert count_depth(model) == 3
    assert count_params(nn.ReLU()) == 0


def test_a_limit_may_be_a_text_with_its_unit() -> None:
    given = Budget(max_params="0.3M", max_macs="40M", max_memory="1MiB", max_latency="8ms")

    assert given == Budget(3e5, 4e7, 2**20, 0.008)
    for wrong in ("abc", True, [1], float("nan"), 0):
        with pytest.raises(UserError, match="max_params"):
            Budget(max_params=wrong)  # type: ignore[arg-type]


def test_a_limit_on_macs_refuses_what_cannot_be_counted() -> None:
    class Fourier(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.fft.fft2(images).abs().mean((2, 3))

    costs = Costs(Fourier(), (3, 8, 8))

    assert Budget(max_params=1).check(costs)[0] is None
    with pytest.raises(UserError, match="its MACs cannot be counted: no formula for _fft_c2c"):
        Budget(max_macs=1e9).check(costs)


@pytest.mark.parametrize("broken", [False, True])
def test_counting_leaves_nothing_behind(broken: bool) -> None:
    model = toys.seeded(toys.Broken if broken else toys.Noisy)
    model.train()
    model.block2.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = {name: module.training for name, module in model.named_modules()}
    state, fused = torch.get_rng_state(), torch.backends.mha.get_fastpath_enabled()

    if broken:
        with pytest.raises(RuntimeError, match="broken half-way"):
            count_macs(model, SHAPE)
    else:
        assert count_macs(model, SHAPE) == 64 * 108 + 16 * 216 + 30

    assert {name: module.training for name, module in model.named_modules()} == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.backends.mha.get_fastpath_enabled() == fused
    assert torch.is_grad_enabled()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize(
    ("budget", "excess"),
    [
        (Budget(), None),
        (Budget(max_params=379), None),
        (Budget(max_params=378), "379 params > 378"),
        (Budget(max_params=1.5), "379 params > 1.5"),
        (Budget(max_macs=10398), None),
        (Budget(max_macs=10397), "10,398 MACs > 10,397"),
        (Budget(1e3, 1e4), "10,398 MACs > 10,000"),
        (Budget(300, 1e4), "379 params > 300"),
        (Budget(math.inf, math.inf), None),
    ],
)
def test_excess_names_the_first_limit_that_is_broken(budget: Budget, excess: str | None) -> None:
    found, _ = budget.check(Costs(toys.LinearHead(), SHAPE))

    assert (found and str(found)) == excess


def test_macs_are_counted_only_if_limited() -> None:
    assert Budget(max_params=1e9).check(Costs(toys.Broken(), SHAPE))[0] is None


@pytest.mark.parametrize("limit", [0, -1, math.nan, -math.inf])
@pytest.mark.parametrize("name", ["max_params", "max_macs"])
def test_limits_are_above_zero(name: str, limit: float) -> None:
    with pytest.raises(UserError, match=f"{name} must be above zero, not {limit}"):
        Budget(**{name: limit})


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("400000", 400_000),
        ("0.4M", 400_000),
        (" 1.2g ", 1_200_000_000),
        ("3B", 3_000_000_000),
        (".5k", 500),
        ("1.", 1),
        ("1e5", 100_000),
        ("2.5E3K", 2_500_000),
        ("0.57M", 570_000),
        ("1.001K", 1001),
        ("0007", 7),
    ],
)
def test_parse_count(text: str, number: float) -> None:
    assert parse_count(text) == number


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "M", "-1", "+1", "1e", "1e-3", "1 M", "1MB", "1,000", "nan", "inf", "0x10"),
        *("1_0", "٣", "½", "1KK", "1\u212a", "1\n2", "1e100", "1.2.3", "0", "0.0M", "0e9"),
        "9" * 400,
    ],
)
def test_junk_is_no_count(text: str) -> None:
    with pytest.raises(UserError) as error:
        parse_count(text)
    assert "\n" not in str(error.value)


@given(st.text(max_size=8))
@example("1\u212a")
def test_parse_count_gives_a_number_or_says_why(text: str) -> None:
    try:
        number = parse_count(text)
    except UserError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert 0 < number < math.inf


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1, "1"),
        (278, "278"),
        (999.6, "1K"),
        (1234, "1.23K"),
        (278_324, "278K"),
        (999_499, "999K"),
        (999_500, "1M"),
        (1_000_000, "1M"),
        (69_130_496, "69.1M"),
        (1.8e9, "1.8G"),
        (3.5e12, "3500G"),
    ],
)
def test_show_count(number: float, text: str) -> None:
    assert show_count(number) == text


@given(st.floats(1, 1e18) | st.integers(1, 10**18))
@example(999_999)
@example(999.9999)
def test_what_is_shown_is_read_back_to_three_digits(number: float) -> None:
    back = parse_count(show_count(number))

    assert back == pytest.approx(number, rel=0.00501)
    assert show_count(back) == show_count(number)


@given(st.integers(1, 10**9), st.sampled_from(["", "K", "M", "G"]))
def test_read_exactly(digits: int, unit: str) -> None:
    power = {"": 0, "K": 3, "M": 6, "G": 9}[unit]

    assert parse_count(f"{digits}{unit}") == digits * 10**power
    if power:
        assert parse_count(f"{digits / 1000:.3f}{unit}") == digits * 10 ** (power - 3)


def test_the_budget_of_an_equal_cost() -> None:
    model = toys.LinearHead()

    alike = Budget.like(model, SHAPE)

    assert alike == Budget(max_params=379, max_macs=10_398)
    assert alike.check(Costs(model, SHAPE)) == (None, {"params": 0, "macs": 0})
    timed = Budget.like(model, SHAPE, ("params", "latency"), lambda: 0.008)
    assert timed == Budget(max_params=379, max_latency=0.008)
    assert Budget.like(model, SHAPE, ["memory"]).max_memory == Costs(model, SHAPE).counts.memory


def test_no_budget_of_a_network_that_fails() -> None:
    with pytest.raises(UserError, match=r"cannot take an image of shape \(3, 8, 8\): RuntimeError"):
        Budget.like(toys.Broken(), SHAPE)
    with pytest.raises(UserError, match="nothing measures it"):
        Budget.like(toys.LinearHead(), SHAPE, ["latency"])
    with pytest.raises(UserError, match="max_params must be above zero, not 0"):
        Budget.like(nn.ReLU(), SHAPE)


def test_costs_are_shown_with_all_digits_of_the_parameters() -> None:
    costs = {"macs": 40_813_184, "params": 272_474, "memory": 1_572_864, "latency": 0.00812, "x": 1}

    assert show_costs(costs) == "272,474 params, 40.8M MACs, 1.57MB memory, 8.12ms latency"
    assert show_costs({}) == ""

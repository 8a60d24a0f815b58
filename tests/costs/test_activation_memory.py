"""The peak of live activations, by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import toys
from torch import Tensor, nn

from diswot.costs.counts import count

SHAPE = (3, 8, 8)
IMAGE = 3 * 64


class Residual(nn.Module):
    """x + conv(relu(conv(x))), and what it may keep."""

    def __init__(self, keep: bool = False) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1)
        self.keep = keep
        self.kept: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        inner = self.one(images)
        if self.keep:
            self.kept.append(inner)
        return images + self.two(inner.relu())


def chain(*layers: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*layers)


@pytest.mark.parametrize(
    ("build", "numbers"),
    [
        (chain(nn.Identity()), IMAGE),
        # the image, the map before and the map after an activation
        (chain(nn.Conv2d(3, 4, 3, 1, 1), nn.ReLU(), nn.Conv2d(4, 2, 1)), IMAGE + 256 + 256),
        # in place: at the last layer the image, its input and its output
        (chain(nn.Conv2d(3, 4, 3, 1, 1), nn.ReLU(True), nn.Conv2d(4, 2, 1)), IMAGE + 256 + 128),
        # views take nothing
        (chain(nn.Flatten(), nn.Unflatten(1, (3, 64)), nn.Flatten()), IMAGE),
        (chain(nn.Flatten(), nn.Linear(IMAGE, 5)), IMAGE + 5),
        # `inner`, its activation and the output of the second convolution
        (Residual, IMAGE + 256 + 256 + IMAGE),
        # the image and an activation of its size; dropout does nothing
        (chain(nn.Dropout(0.5), nn.Tanh()), 2 * IMAGE),
        # a grid of 1 x 4 x 4 at half the resolution, never more than two maps and the image
        (chain(nn.Conv2d(3, 1, 2, 2), nn.ReLU(), nn.ReLU(), nn.ReLU()), IMAGE + 16 + 16),
    ],
)
def test_peak_by_hand(build: Callable[[], nn.Module], numbers: int) -> None:
    assert count(build(), SHAPE).memory == 4 * numbers


def test_inner_is_dead_when_the_sum_is_made() -> None:
    """While `images + two` is made there are image, `inner`, `two` and the sum: less than before.

    The activation, an unnamed value, is gone by then; `inner` has its name.
    """
    before, at_sum = 4 * (2 * IMAGE + 256 + 256), 4 * (3 * IMAGE + 256)

    assert count(Residual(), SHAPE).memory == max(before, at_sum)


def test_a_double_takes_twice_as_much_and_a_byte_a_quarter() -> None:
    class Cast(nn.Module):
        def __init__(self, to: torch.dtype) -> None:
            super().__init__()
            self.to_type = to

        def forward(self, images: Tensor) -> Tensor:
            return images.to(self.to_type)

    assert count(Cast(torch.float64), SHAPE).memory == (4 + 8) * IMAGE
    assert count(Cast(torch.uint8), SHAPE).memory == (4 + 1) * IMAGE


def test_parameters_and_buffers_are_no_activations() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1000))
            self.register_buffer("table", torch.ones(1000))

        def forward(self, images: Tensor) -> Tensor:
            return images.sum() + self.weight.view(10, 100)[0, 0] + self.table[0]

    # of three sums no more than two at a time
    assert count(Own(), SHAPE).memory == 4 * (IMAGE + 2)


def test_attention_holds_its_maps() -> None:
    """16 tokens of width 8 in 2 heads: at least the scores and their softmax, 2 x 16 x 16 each."""

    class Attention(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            tokens = images.reshape(1, 2, 12, 8)
            return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)

    assert count(Attention(), SHAPE).memory >= 4 * (IMAGE + 2 * 2 * 12 * 12)


def test_a_wider_network_takes_more_and_a_larger_image_too() -> None:
    small = count(toys.LinearHead(), SHAPE).memory

    assert count(toys.LinearHead(), (3, 16, 16)).memory > small

"""Modules that run otherwise for a while, and are left as they were."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from diswot.observation.modes import replaced, sliced_shortcuts


def test_replaced_modules_have_their_own_pass_again() -> None:
    plain, own = nn.Linear(2, 2), nn.Linear(2, 2)
    vars(own)["forward"] = own_pass = lambda x: x
    x = torch.ones(1, 2)
    expected = plain(x)
    with pytest.raises(RuntimeError), replaced(dict.fromkeys((plain, own), lambda x: x + 1)):
        assert torch.equal(plain(x), x + 1) and torch.equal(own(x), x + 1)
        raise RuntimeError
    assert torch.equal(plain(x), expected)
    assert "forward" not in vars(plain) and vars(own)["forward"] is own_pass


@pytest.mark.parametrize(("stride", "groups", "bias"), [((2, 2), 1, True), ((3, 1), 4, False)])
def test_a_sliced_shortcut_computes_the_same(
    stride: tuple[int, int], groups: int, bias: bool
) -> None:
    """Under channels_last torch 2.14 ends the process in the first case, on AVX-512."""
    convolution = nn.Conv2d(8, 16, 1, stride, groups=groups, bias=bias)
    images = torch.randn(2, 8, 64, 80)
    expected = convolution(images)
    (expected**2).sum().backward()
    wanted = {name: p.grad for name, p in convolution.named_parameters()}
    convolution.zero_grad()
    model = nn.Sequential(convolution).to(memory_format=torch.channels_last)
    with sliced_shortcuts(model):
        found = model(images.contiguous(memory_format=torch.channels_last))
        (found**2).sum().backward()
    torch.testing.assert_close(found, expected)
    for name, parameter in convolution.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name], rtol=1e-4, atol=1e-3)


def test_only_narrow_strided_shortcuts_are_sliced() -> None:
    layers = [
        nn.Conv2d(8, 16, 1, 2), nn.Conv2d(16, 16, 1, 2), nn.Conv2d(8, 16, 1),
        nn.Conv2d(8, 16, 3, 2, 1), nn.Conv2d(8, 16, 1, 2, padding=1),
    ]  # fmt: skip
    with sliced_shortcuts(nn.Sequential(*layers)):
        assert ["forward" in vars(layer) for layer in layers] == [True, *[False] * 4]

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from diswot.costs.counts import count_depth, count_params
from diswot.errors import UserError
from diswot.observation.observe import observe
from diswot.spaces import transnas
from diswot.spaces.registry import SPACES, build_network, create_space, enumerate_params

STEM = (3 * 32 * 9 + 2 * 32) + (32 * 64 * 9 + 2 * 64)
WIDTHS = [(64, 128), (128, 128), (128, 256), (256, 256), (256, 512)]


def micro(text: str, classes: int = 75) -> nn.Module:
    return build_network(create_space("transnas_micro", classes), transnas.from_micro(text))


def macro(text: str, classes: int = 75) -> nn.Module:
    return build_network(create_space("transnas_macro", classes), transnas.from_macro(text))


def test_the_published_sizes() -> None:
    """4,096 cells; 3,256 networks of modules, all of which can be told apart."""
    assert SPACES["transnas_micro"].size == 4096
    assert SPACES["transnas_macro"].size == 3256
    digits = itertools.chain(*(itertools.product("1234", repeat=n) for n in (4, 5, 6)))
    found = set()
    for each in digits:
        try:
            found.add(tuple(transnas.from_macro("-".join(each)).values()))
        except UserError:
            continue
    assert len(found) == 3256


@pytest.mark.parametrize("text", ["3-0-0-0-0-0", "0-0-0-3-0-0", "0-3-0-0-0-0"])
def test_parameters_of_one_convolution(text: str) -> None:
    """A 3x3 convolution from node 0: in the first cell of a module from the module's input."""
    cells = sum(9 * a * b + 2 * b + 9 * b * b + 2 * b for a, b in WIDTHS)
    assert count_params(micro(text)) == STEM + cells + 512 * 75 + 75


def test_parameters_between_later_nodes() -> None:
    cells = sum(2 * (b * b + 2 * b) for _, b in WIDTHS)
    assert count_params(micro("0-0-2-0-0-0")) == STEM + cells + 512 * 75 + 75


def test_a_skip_is_two_convolutions_where_the_shape_changes() -> None:
    """A 1x1 convolution to all channels, in two halves; nothing in modules 2 and 4's cells."""
    changes = [(64, 128), (128, 256), (256, 512)]
    assert count_params(micro("0-0-0-1-0-0")) == (
        STEM + sum(a * b + 2 * b for a, b in changes) + 512 * 75 + 75
    )
    assert count_depth(micro("0-0-0-1-0-0")) == 2 + 3 * 2 + 1


def test_a_shifted_convolution_sees_the_other_pixels() -> None:
    halves = transnas.ShiftedConvolutions(1, 2)
    nn.init.ones_(halves.even.weight)
    nn.init.ones_(halves.odd.weight)
    x = torch.arange(16.0).reshape(1, 1, 4, 4)

    assert halves(x)[0].tolist() == [[[0, 2], [8, 10]], [[5, 7], [13, 15]]]
    assert halves(x[:, :, :3, :3])[0].tolist() == [[[0, 2], [8, 10]], [[5, 0], [0, 0]]]


def test_a_cell_without_a_path_gives_zeros() -> None:
    model = micro("3-3-3-0-0-0").eval()

    assert model.module1(torch.ones(2, 64, 7, 7)).shape == (2, 128, 4, 4)
    assert model.module1(torch.ones(2, 64, 7, 7)).abs().sum() == 0


def test_parameters_of_modules() -> None:
    """Modules 1, 4, 2, 3: channels 64, 128, 256, 256; a shortcut where the shape changes."""

    def block(a: int, b: int) -> int:
        return 9 * a * b + 9 * b * b + 4 * b

    inner = sum(block(b, b) for b in (64, 128, 256, 256))
    firsts = block(64, 64) + block(64, 128) + block(128, 256) + block(256, 256)
    shortcuts = 64 * 128 + 256 + 128 * 256 + 512 + 256 * 256 + 512
    assert count_params(macro("1-4-2-3")) == STEM + inner + firsts + shortcuts + 256 * 75 + 75


def test_maps_of_a_macro_network() -> None:
    seen = observe(macro("1-4-2-3"), torch.randn(2, 3, 64, 64), torch.tensor([0, 1]))

    assert [tuple(stage.shape[1:]) for stage in seen.stages][-3:] == [
        (64, 16, 16),
        (256, 8, 8),
        (256, 4, 4),
    ]


def test_notation_of_modules() -> None:
    params = {"modules": 5, "halved_5": "1-2-4", "doubled_5": "1-3"}

    assert transnas.from_macro("4-3-2-3-1") == params
    assert transnas.from_macro("4-3-2-3-1-0") == params


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("1-2-3", "modules is 3; known: 4, 5, 6"),
        ("1-2-3-5", "1, 2, 3 or 4, not '5'"),
        ("1-1-2-2", "halved_4 is 0 modules of 1-1-2-2; known: 1 to 4"),
        ("4-4-4-4", "doubled_4 is 4 modules of 4-4-4-4; known: 1 to 3"),
    ],
)
def test_what_is_no_macro_network(text: str, part: str) -> None:
    with pytest.raises(UserError, match=part):
        transnas.from_macro(text)


@pytest.mark.parametrize(
    ("text", "part"), [("0-0-0-0-1", "6 operations, not 5"), ("0-0-0-0-0-4", "not '4'")]
)
def test_what_is_no_cell(text: str, part: str) -> None:
    with pytest.raises(UserError, match=part):
        transnas.from_micro(text)


@pytest.mark.slow
def test_all_macro_networks_are_enumerated() -> None:
    found = enumerate_params(create_space("transnas_macro", 2), 5000)

    assert found is not None and len(found) == 3256

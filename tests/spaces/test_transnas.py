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
    """4,096 cells; 3,256 networks of modules, all of which differ."""
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


def test_parameters_of_the_decoder_for_segmentation() -> None:
    """Eight layers from 128 channels: 1,024, then halved five times, 32 again, and the logits."""
    model = build_network(create_space("transnas_macro_seg", 17), transnas.from_macro("1-3-2-3"))
    widths = [128, 1024, 512, 256, 128, 64, 32, 32]
    norms = sum(2 * width for width in widths[1:])
    layers = sum(9 * a * b + b for a, b in itertools.pairwise([*widths, 17]))

    assert count_params(model.decoder) == layers + norms
    assert count_params(model.encoder) == count_params(macro("1-3-2-3")) - 128 * 75 - 75


@pytest.mark.parametrize(("text", "halvings"), [("1-1-2-3", 3), ("1-3-2-3", 4), ("4-3-3-3", 6)])
def test_the_decoder_returns_to_the_size_of_the_images(text: str, halvings: int) -> None:
    model = build_network(create_space("transnas_macro_seg", 17), transnas.from_macro(text))
    doubling = [isinstance(layer[0], nn.ConvTranspose2d) for layer in model.decoder[:-1]]

    with torch.no_grad():
        assert model(torch.zeros(2, 3, 64, 128)).shape == (2, 17, 64, 128)
    assert doubling == [False] * (7 - halvings) + [True] * halvings


def test_a_micro_network_for_segmentation_is_observed() -> None:
    build = create_space("transnas_micro_seg", 5)
    model = build_network(build, transnas.from_micro("1-2-0-1-0-2"))
    images, labels = torch.randn(2, 3, 64, 64), torch.randint(5, (2, 64, 64))
    seen = observe(model, images, labels)

    assert [tuple(stage.shape[1:]) for stage in seen.stages] == [
        (32, 32, 32),
        (64, 16, 16),
        (128, 8, 8),
        (256, 4, 4),
        (512, 2, 2),
        (32, 64, 64),
    ]
    assert seen.head_input.shape == (4096, 32 * 9)


@pytest.mark.slow
def test_all_macro_networks_are_enumerated() -> None:
    found = enumerate_params(create_space("transnas_macro", 2), 5000)

    assert found is not None and len(found) == 3256

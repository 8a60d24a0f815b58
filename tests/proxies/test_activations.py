from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import toys
from proxies import naive
from torch import Tensor, nn
from torch.nn import functional
from toys import seeded

from diswot.data.dataset import Batch
from diswot.errors import UserError
from diswot.proxies import activation_codes, activations
from diswot.proxies.activation_codes import ActivationCodes
from diswot.proxies.candidate import Candidate

TOYS = (toys.LinearHead, toys.Nested)
every_toy = pytest.mark.parametrize("toy", TOYS, ids=lambda toy: toy.__name__)


def candidate(model: nn.Module, images: Tensor, labels: Tensor, seed: int = 0) -> Candidate:
    return Candidate(model, None, Batch(images, labels), seed)


def of(toy: type[nn.Module], size: int = 6, seed: int = 0) -> Candidate:
    return candidate(seeded(toy), *toys.batch(size), seed)


def exact(toy: type[nn.Module], size: int = 6) -> Candidate:
    images, labels = toys.batch(size)
    return candidate(seeded(toy).double(), images.double(), labels)


class Plain(nn.Module):
    """A 1 x 1 convolution, a rectifier, a linear layer on what is flattened."""

    def __init__(self, rectifier: object = functional.relu, channels: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 1, bias=False)
        self.fc = nn.Linear(channels * 64, toys.CLASSES, bias=False)
        self.rectifier = rectifier

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.rectifier(self.conv(images)).flatten(1))


# naswot


@every_toy
def test_agreement_is_as_counted_unit_by_unit(toy: type[nn.Module]) -> None:
    given = of(toy)
    expected = naive.agreement(given.student, given.batch.images)
    codes = given.recorded(ActivationCodes)
    assert np.array_equal(codes.agreement.numpy(), expected)
    assert codes.units == expected[0, 0]
    assert activations.naswot(given) == pytest.approx(np.linalg.slogdet(expected)[1], rel=1e-9)


def test_naswot_of_two_images_by_hand() -> None:
    """Four units, images that agree on one of them: det [[4, 1], [1, 4]] = 15, 64 times over."""
    model = Plain()
    with torch.no_grad():
        model.conv.weight.zero_()
        model.conv.weight[:, 0, 0, 0] = torch.tensor([1.0, 1.0, 1.0, 0.0])
    images = torch.ones(2, 3, 8, 8)
    images[1] = -1
    given = candidate(model, images, torch.tensor([0, 1]))
    size = 64.0
    expected = torch.tensor([[4 * size, size], [size, 4 * size]]).double()
    assert torch.equal(given.recorded(ActivationCodes).agreement, expected)
    assert activations.naswot(given) == pytest.approx(math.log(15 * size**2))


def test_equal_codes_score_lowest() -> None:
    images, labels = toys.batch()
    images[1] = images[0]
    assert activations.naswot(candidate(seeded(toys.LinearHead), images, labels)) == -math.inf


RECTIFIERS = (
    functional.relu,
    functional.relu_,
    torch.relu,
    Tensor.relu_,
    functional.gelu,
    functional.silu,
    functional.hardswish,
    functional.relu6,
    functional.leaky_relu,
    functional.elu,
    functional.mish,
    nn.ReLU(),
    nn.ReLU(inplace=True),
    nn.GELU("tanh"),
    nn.SiLU(inplace=True),
    nn.Hardswish(inplace=True),
    nn.ReLU6(inplace=True),
)


@pytest.mark.parametrize("rectifier", RECTIFIERS, ids=lambda r: getattr(r, "__name__", str(r)))
def test_every_kind_of_rectifier_is_seen_once(rectifier: object) -> None:
    given = candidate(seeded(lambda: Plain(rectifier)), *toys.batch())
    codes = given.recorded(ActivationCodes)
    pattern = given.student.conv(given.batch.images).flatten(1) > 0
    expected = [[int((a == b).sum()) for b in pattern] for a in pattern]
    assert codes.agreement.tolist() == expected
    assert codes.units == 4 * 64


class Twice(Plain):
    """One tensor goes through two rectifiers; the second time perhaps changed in between."""

    def __init__(self, change: bool, rectifier: object) -> None:
        super().__init__(rectifier)
        self.change = change

    def forward(self, images: Tensor) -> Tensor:
        features = self.conv(images)
        first = self.rectifier(features)
        if self.change:
            features.neg_()
        return self.fc((first + self.rectifier(features)).flatten(1))


@pytest.mark.parametrize("change", [False, True])
@pytest.mark.parametrize("rectifier", [functional.relu, functional.silu])
def test_a_tensor_rectified_twice_counts_twice(change: bool, rectifier: object) -> None:
    given = candidate(seeded(lambda: Twice(change, rectifier)), *toys.batch())
    features = given.student.conv(given.batch.images).flatten(1)
    pattern = torch.cat((features, -features if change else features), 1) > 0
    expected = [[int((a == b).sum()) for b in pattern] for a in pattern]
    assert given.recorded(ActivationCodes).agreement.tolist() == expected


def test_flex_attention_has_no_rectifiers() -> None:
    flex = pytest.importorskip("torch.nn.attention.flex_attention").flex_attention
    plain = of(Plain)
    attending = of(lambda: Plain(lambda maps: flex(*3 * [functional.relu(maps)])))  # type: ignore[arg-type]
    assert activations.naswot(attending) == activations.naswot(plain)


def test_naswot_needs_rectifiers() -> None:
    with pytest.raises(UserError, match="rectifiers"):
        activations.naswot(candidate(Plain(torch.sigmoid), *toys.batch()))


def test_layout_and_device_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    given = of(toys.Nested)
    images = given.batch.images.contiguous(memory_format=torch.channels_last)
    score = activations.naswot(given)
    assert activations.naswot(candidate(given.student, images, given.batch.labels)) == score
    monkeypatch.setattr(activation_codes, "_ONEDNN", False)
    assert activations.naswot(of(toys.Nested)) == score


def test_only_the_first_run_counts() -> None:
    """Two heads make `observe` run twice."""
    assert of(toys.TwoHeads).recorded(ActivationCodes).units == (4 * 8 + 6 * 2) * 8


# jacov and epe_nas


@every_toy
def test_jacov_is_as_by_finite_differences(toy: type[nn.Module]) -> None:
    given = exact(toy)
    expected = naive.jacov(given.student, given.batch.images)
    assert activations.jacov(given) == pytest.approx(expected, rel=1e-4)


def test_jacov_of_a_linear_network() -> None:
    """All images have the same gradient: the correlations are all one."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 2)).double()
    images, labels = toys.batch(6)
    k = 1e-5
    expected = -(math.log(6 + k) + 1 / (6 + k) + 5 * (math.log(k) + 1 / k))
    found = activations.jacov(candidate(model, images.double(), labels))
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("toy", "many"), [(toys.LinearHead, 100), (toys.ClassToken, 2)])
def test_epe_nas_is_as_by_finite_differences(
    toy: type[nn.Module], many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activations, "_MANY_CLASSES", many)
    given = exact(toy)
    given.batch.labels.copy_(torch.tensor([0, 2, 2, 0, 4, 2]))
    expected = naive.epe_nas(given.student, *given.batch, many=many)
    assert activations.epe_nas(given) == pytest.approx(expected, rel=1e-4)


def test_epe_nas_says_nothing_of_classes_of_one_image() -> None:
    for toy in TOYS:
        given = exact(toy, 4)
        given.batch.labels.copy_(torch.arange(4))
        assert activations.epe_nas(given) == pytest.approx(4 * math.log(1 + 1e-5))


def test_correlations() -> None:
    rows = torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0], [1.0, 3.0, 2.0]])
    expected = torch.tensor([[1.0, -1.0, 0.5], [-1.0, 1.0, -0.5], [0.5, -0.5, 1.0]])
    torch.testing.assert_close(activations.correlations(rows), expected.double())
    assert activations.correlations(torch.tensor([[1.0, 1.0], [1.0, 2.0]])).isnan().any()


# zen


def test_zen_is_as_by_loops() -> None:
    given = of(toys.LinearHead, seed=7)

    def features(model: nn.Module, images: Tensor) -> Tensor:
        return model.block2(model.block1(images))

    expected = naive.zen(given.student, features, 7, given.batch.images)
    assert activations.zen(given) == pytest.approx(expected, rel=1e-4)


def test_zen_counts_the_scale_that_normalisation_takes_out() -> None:
    given = exact(toys.LinearHead)
    before = activations.zen(given)
    with torch.no_grad():
        given.student.block1[0].weight.mul_(1024)
    assert activations.zen(given) == pytest.approx(before + math.log(1024), abs=1e-3)


def test_zen_draws_from_its_seed_alone() -> None:
    scores = [activations.zen(of(toys.LinearHead, seed=seed)) for seed in (1, 1, 2)]
    assert scores[0] == scores[1] != scores[2]


def test_zen_of_an_undisturbed_map_is_lowest() -> None:
    given = of(toys.LinearHead)
    nn.init.zeros_(given.student.block2[1].weight)
    assert activations.zen(given) == -math.inf


def test_zen_leaves_out_normalisations_of_a_constant() -> None:
    model = seeded(toys.LinearHead)
    with torch.no_grad():
        model.block1[1].weight.zero_()
        model.block1[1].bias.fill_(1)
        model.block2[0].weight.zero_()
    assert activations.zen(candidate(model, *toys.batch())) == -math.inf

from __future__ import annotations

import math
from collections.abc import Callable

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
from diswot.proxies import gradients, ntk_fisher
from diswot.proxies.blocks import weights
from diswot.proxies.candidate import Candidate
from diswot.proxies.synflow import synflow

TOYS = (toys.LinearHead, toys.SqueezeExcite, toys.ClassToken)
every_toy = pytest.mark.parametrize("toy", TOYS, ids=lambda toy: toy.__name__)


def candidate(model: nn.Module, images: Tensor, labels: Tensor, seed: int = 0) -> Candidate:
    return Candidate(model, None, Batch(images, labels), seed)


def exact(toy: Callable[[], nn.Module], size: int = 6) -> Candidate:
    """A toy and its batch in float64."""
    images, labels = toys.batch(size)
    return candidate(seeded(toy).double(), images.double(), labels)


class Line(nn.Module):
    """h = w . x for images of one pixel, logits (h, -h): all gradients are known.

    With q the share of the wrong label 1, a sample's gradient is -2qx in w and (-qh, qh) in the
    classifier.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 1, 1, bias=False), nn.Linear(1, 2, bias=False)
        with torch.no_grad():
            self.conv.weight.fill_(1 / 3)
            self.fc.weight.copy_(torch.tensor([[1.0], [-1.0]]))

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.conv(images).flatten(1))


def line(*values: float) -> Candidate:
    """A sample a value: images of it alone, all of label 0."""
    images = torch.tensor(values).double()[:, None, None, None].expand(-1, 3, 1, 1)
    return candidate(Line().double(), images, torch.zeros(len(values), dtype=torch.int64))


def wrong(h: float) -> float:
    return 1 / (1 + math.exp(2 * h))


# Against slow formulas


@every_toy
@pytest.mark.parametrize("name", ["grad_norm", "snip", "grasp", "fisher", "zico"])
def test_gradients_are_as_by_finite_differences(toy: type[nn.Module], name: str) -> None:
    given = exact(toy)
    expected = getattr(naive, name)(given.student, *given.batch)
    assert getattr(gradients, name)(given) == pytest.approx(expected, rel=1e-4)


@every_toy
def test_synflow_is_as_on_a_copy_without_normalisation(toy: type[nn.Module]) -> None:
    given = exact(toy)
    expected = naive.synflow(given.student, given.batch.images.shape[1:])
    assert synflow(given) == pytest.approx(expected, rel=1e-12)


@every_toy
def test_ntk_is_as_by_finite_differences(toy: type[nn.Module]) -> None:
    given = exact(toy)
    values = np.linalg.eigvalsh(np.array(naive.ntk(given.student, given.batch.images)))
    assert ntk_fisher.ntk_cond(given) == pytest.approx(-values[-1] / values[0], rel=1e-4)


@every_toy
def test_vkdnw_is_as_by_finite_differences(toy: type[nn.Module]) -> None:
    given = exact(toy)
    random = torch.Generator().manual_seed(given.seed)
    sizes = [kernel.numel() for kernel in naive.kernels(given.student)]
    chosen = [(k, int(torch.randint(n, (), generator=random))) for k, n in enumerate(sizes)]
    information = naive.fisher_information(given.student, given.batch.images, chosen)
    expected = naive.spectrum_entropy(information)
    assert ntk_fisher.vkdnw(given) == pytest.approx(expected, rel=1e-4)


# By hand


def test_scores_of_a_line() -> None:
    given, q = line(1.0, 1.0), wrong(1)
    assert gradients.snip(given) == pytest.approx(4 * q)
    assert gradients.grad_norm(given) == pytest.approx((2 * math.sqrt(3) + math.sqrt(2)) * q)
    assert gradients.fisher(given) == pytest.approx(3 * q**2)
    assert synflow(given) == pytest.approx(math.log(4))


def test_zico_of_a_line() -> None:
    a, b = wrong(1), 2 * wrong(2)
    ratio = (a + b) / abs(a - b)
    expected = math.log(3 * ratio) + math.log(2 * ratio)
    assert gradients.zico(line(1.0, 1.0, 2.0, 2.0)) == pytest.approx(expected)


def test_zico_leaves_out_what_does_not_vary() -> None:
    assert gradients.zico(line(1.0, 1.0, 1.0, 1.0)) == 0


def test_zico_needs_batches_that_can_be_halved() -> None:
    with pytest.raises(UserError, match="4 images, not 3"):
        gradients.zico(line(1.0, 2.0, 3.0))


def test_grasp_of_normalised_weights_is_the_squared_gradient() -> None:
    given = exact(toys.LinearHead)
    given.student.fc.requires_grad_(False)
    for module in given.student.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-12
    squares = sum(float(g.square().sum()) for g in given.weight_gradients.values())
    assert gradients.grasp(given) == pytest.approx(squares, rel=1e-9)


def flat_linear(rows: list[list[float]]) -> Candidate:
    """One linear layer with two outputs, on images of one pixel."""
    images = torch.tensor(rows).double()[:, :, None, None]
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 2, bias=False)).double()
    return candidate(model, images, torch.zeros(len(rows), dtype=torch.int64))


def test_ntk_of_a_linear_layer_is_twice_the_gram_matrix() -> None:
    assert ntk_fisher.ntk_cond(flat_linear([[1, 0, 0], [0, 2, 0]])) == pytest.approx(-4)


def test_a_singular_kernel_scores_lowest() -> None:
    assert ntk_fisher.ntk_cond(flat_linear([[1, 2, 3], [1, 2, 3]])) == -math.inf


def test_one_weight_has_equal_deciles() -> None:
    assert ntk_fisher.vkdnw(flat_linear([[1, 0, 0], [0, 2, 1]])) == pytest.approx(math.log(9))


def test_fisher_information_of_a_coin() -> None:
    """Logits (t, 0) have information p (1 - p) in t."""
    slopes = torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]]])
    found = ntk_fisher.fisher_information(slopes, torch.tensor([[0.2, 0.8]]))
    torch.testing.assert_close(found, torch.tensor([[0.16, 0.0], [0.0, 0.0]]))


class Hard(toys.LinearHead):
    def features(self, images: Tensor) -> Tensor:
        return functional.hardsigmoid(super().features(images))


def test_grasp_of_what_has_no_second_derivative() -> None:
    with pytest.raises(UserError, match=r"twice: derivative for aten::hardsigmoid_backward"):
        gradients.grasp(exact(Hard))


# Synflow where numbers are large


class Deep(nn.Module):
    """Residual blocks of 1 x 1 convolutions: each multiplies what comes through by 1 + c w."""

    def __init__(self, depth: int, weight: float, outer: bool = False) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Part(weight) for _ in range(depth)))
        self.fc, self.outer = nn.Linear(3, 2, bias=False), outer
        nn.init.ones_(self.fc.weight)

    def forward(self, images: Tensor) -> Tensor:
        features = self.blocks(images)
        if self.outer:
            features = features + images
        return self.fc(features.mean((2, 3)))


class Part(nn.Module):
    def __init__(self, weight: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.conv = nn.Conv2d(3, 3, 1, bias=False)
        nn.init.constant_(self.conv.weight, -weight)

    def forward(self, images: Tensor) -> Tensor:
        return images + functional.relu(self.conv(self.norm(images)))


@pytest.mark.parametrize(("depth", "weight"), [(3, 2.0), (60, 1e3), (300, 1e3), (40, 2.0**100)])
def test_synflow_does_not_overflow(depth: int, weight: float) -> None:
    """R = 6 (1 + 3w)^n; each block adds R 3w / (1 + 3w), the classifier R."""
    gain = 1 + 3 * weight
    expected = math.log(6) + depth * math.log(gain) + math.log(depth * 3 * weight / gain + 1)
    given = candidate(Deep(depth, weight), *toys.batch(2))
    assert synflow(given) == pytest.approx(expected, rel=1e-12)


def test_synflow_does_not_scale_what_is_no_row_of_blocks() -> None:
    """A shortcut around all blocks sees their scaled output: no number rather than a wrong one."""
    images, labels = toys.batch(2)
    assert synflow(candidate(Deep(3, 2.0, outer=True), images, labels)) > 0
    with pytest.raises(UserError, match="synflow overflows"):
        synflow(candidate(Deep(300, 1e3, outer=True), images, labels))


def test_synflow_of_nothing_is_lowest() -> None:
    given = candidate(Deep(2, 0.0), *toys.batch(2))
    nn.init.zeros_(given.student.fc.weight)
    assert synflow(given) == -math.inf


# Which weights


def test_weights_are_trainable_matrices_and_kernels() -> None:
    model = seeded(toys.ClassToken)
    names = ["patches.weight", "attention.in_proj_weight", "attention.out_proj.weight"]
    assert list(weights(model)) == [*names, "head.weight"]
    model.patches.requires_grad_(False)
    assert list(weights(model)) == [*names[1:], "head.weight"]


def test_a_model_without_weights_says_so() -> None:
    model = seeded(toys.LinearHead).requires_grad_(False)
    with pytest.raises(UserError, match="no trainable weights"):
        gradients.snip(candidate(model, *toys.batch()))

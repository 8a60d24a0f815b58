"""Observation of networks that give logits for each position."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, relu, unfold

from diswot.errors import UserError
from diswot.observation.dense_head import RanConvolution, head_inputs
from diswot.observation.observe import Observation, observe, record
from diswot.observation.rows import PixelRows, logits_of

CLASSES, SIZE = 3, (16, 24)


class Dense(nn.Module):
    """An encoder of two stages, and a head of a given kernel."""

    def __init__(self, kernel: int = 1) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU()),
            nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1), nn.ReLU()),
        )
        self.head = nn.Conv2d(6, CLASSES, kernel, padding=kernel // 2)

    def forward(self, images: Tensor) -> object:
        return self.enlarged(self.head(self.encoder(images)))

    def enlarged(self, logits: Tensor) -> object:
        return interpolate(logits, SIZE, mode="bilinear", align_corners=False)


class Aligned(Dense):
    def enlarged(self, logits: Tensor) -> object:
        return interpolate(logits, SIZE, mode="bilinear", align_corners=True)


class Small(Dense):
    """Logits at a quarter of the size, as transformers return them."""

    def enlarged(self, logits: Tensor) -> object:
        return logits


class Nearest(Dense):
    """Logits that are no bilinear function of the head's."""

    def enlarged(self, logits: Tensor) -> object:
        return interpolate(logits, SIZE, mode="nearest")


class Summed(Dense):
    """Two heads at two stages, as LR-ASPP has them, and an auxiliary head that runs last."""

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.Conv2d(4, CLASSES, 1)
        self.auxiliary = nn.Conv2d(6, CLASSES, 1)

    def forward(self, images: Tensor) -> object:
        early = self.encoder[0](images)
        deep = interpolate(self.encoder[1](early), early.shape[2:], mode="bilinear")
        logits = self.low(early) + self.head(deep)
        aux = self.auxiliary(deep[:, :, ::2, ::2])
        return {"out": self.enlarged(logits), "aux": aux}


class Decoded(Dense):
    """A decoder that returns to the resolution of the first stage."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(5, CLASSES, 1)
        self.decoder = nn.ConvTranspose2d(6, 5, 2, 2)

    def forward(self, images: Tensor) -> object:
        return self.enlarged(self.head(relu(self.decoder(self.encoder(images)))))


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    images = torch.randn(2, 3, *SIZE, generator=random)
    return images, torch.randint(-1, CLASSES, (2, *SIZE), generator=random)


def gradient(model: nn.Module, weights: list[Tensor]) -> Tensor:
    """The gradient of the mean cross-entropy of the rows, by autograd."""
    images, targets = batch()
    logits = logits_of(model(images))
    whole = interpolate(logits, SIZE, mode="bilinear") if logits.shape[2:] != SIZE else logits
    rows = whole.permute(0, 2, 3, 1)[targets >= 0]
    found = torch.autograd.grad(cross_entropy(rows, targets[targets >= 0]), weights)
    return torch.cat([each.flatten(1) for each in found], 1)


@pytest.mark.parametrize("build", [Dense, Aligned, Small, Nearest, Decoded, lambda: Dense(3)])
def test_class_gradient_is_that_of_autograd(build: Callable[[], Dense]) -> None:
    torch.manual_seed(0)
    model = build()
    seen = observe(model, *batch())
    expected = gradient(model, [model.head.weight])
    torch.testing.assert_close(seen.class_gradient, expected, rtol=1e-4, atol=1e-6)
    rows = int((batch()[1] >= 0).sum())
    assert seen.logits.shape == (rows, CLASSES)
    assert len(seen.head_input) == len(seen.targets) == rows


def test_summed_heads_are_one_classifier() -> None:
    torch.manual_seed(0)
    model = Summed()
    seen = observe(model, *batch())
    expected = gradient(model, [model.low.weight, model.head.weight])
    torch.testing.assert_close(seen.class_gradient, expected, rtol=1e-4, atol=1e-6)
    weight = torch.cat([model.low.weight, model.head.weight], 1).flatten(1)
    logits = seen.head_input @ weight.T + model.low.bias + model.head.bias
    torch.testing.assert_close(logits, seen.logits, rtol=1e-4, atol=1e-5)


def test_only_an_inexact_head_costs_a_second_pass() -> None:
    for build, passes in ((Dense, 1), (Summed, 1), (Nearest, 2)):
        model, calls = build(), 0

        def count(*_: object) -> None:
            nonlocal calls
            calls += 1

        model.register_forward_hook(count)
        observe(model, *batch())
        assert calls == passes, build


def test_stages_are_those_of_the_encoder_and_the_map_before_the_head() -> None:
    def shapes(seen: Observation) -> list[tuple[int, ...]]:
        return [tuple(each.shape[1:]) for each in seen.stages]

    assert shapes(observe(Dense(), *batch())) == [(4, 8, 12), (6, 4, 6)]
    assert shapes(observe(Decoded(), *batch())) == [(4, 8, 12), (6, 4, 6), (5, 8, 12)]


def test_layers_are_taken_by_name() -> None:
    torch.manual_seed(0)
    model = Summed()
    layers = {"classifier": "head", "last": "encoder.0", "stages": ["encoder.0"]}
    seen = observe(model, *batch(), layers=layers)
    expected = gradient(model, [model.head.weight])
    torch.testing.assert_close(seen.class_gradient, expected, rtol=1e-4, atol=1e-6)
    assert seen.last.shape == (2, 4, 8, 12)
    assert len(seen.stages) == 1


def test_the_observation_of_a_training_step_has_gradients() -> None:
    model = Dense()
    record(model, *batch()).class_gradient.square().sum().backward()
    assert all(each.grad is not None for each in model.encoder.parameters())


def test_pixels_that_are_drawn_are_the_rows() -> None:
    random = torch.Generator().manual_seed(0)
    targets = torch.randint(0, CLASSES, (2, 64, 96), generator=random)
    images = torch.randn(2, 3, 64, 96, generator=random)
    model = Small()
    seen = observe(model, images, targets)
    assert torch.equal(seen.targets, PixelRows(targets).classes)
    error = seen.logits.softmax(1) - nn.functional.one_hot(seen.targets, CLASSES)
    torch.testing.assert_close(seen.class_gradient, error.T @ seen.head_input / len(seen.targets))


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (torch.full((2, *SIZE), CLASSES), "label 3 does not fit"),
        (torch.full((2, *SIZE), -2), "label -2 does not fit"),
        (torch.zeros(2, *SIZE), "one int64 class index a pixel"),
        (torch.zeros(3, *SIZE, dtype=torch.int64), "one int64 class index a pixel"),
    ],
)
def test_wrong_targets_are_refused(targets: Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message):
        observe(Dense(), batch()[0], targets)


def test_a_classifier_is_no_dense_network() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 24, CLASSES))
    with pytest.raises(UserError, match="logits B x K x H x W"):
        observe(model, *batch())


def test_a_network_without_a_convolution_of_k_outputs_has_no_classifier() -> None:
    class Tokens(Dense):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(6, CLASSES)

        def forward(self, images: Tensor) -> object:
            tokens = self.encoder(images).permute(0, 2, 3, 1)
            return self.linear(tokens).permute(0, 3, 1, 2)

    with pytest.raises(UserError, match="no classifier found: a convolution of 3 outputs"):
        observe(Tokens(), *batch())


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": (3, 2), "padding": (2, 1), "dilation": (2, 1)},
        {"kernel_size": 3, "stride": (2, 1)},
    ],
)
def test_inputs_of_a_kernel_are_its_patches(options: dict[str, Any]) -> None:
    layer = nn.Conv2d(4, CLASSES, bias=False, **options)
    features = torch.randn(2, 4, 9, 11)
    output = layer(features)
    targets = torch.zeros(2, *output.shape[2:], dtype=torch.int64)
    rows = PixelRows(targets)
    found = head_inputs(
        [RanConvolution("head", layer, features, output)], rows, align_corners=False
    )
    patches = unfold(features, layer.kernel_size, layer.dilation, layer.padding, layer.stride)

    assert found is not None
    assert torch.equal(found, patches.transpose(1, 2).flatten(0, 1))
    assert torch.allclose(found @ layer.weight.flatten(1).T, rows.read(output), atol=1e-5)


def test_a_head_inside_of_what_is_called_the_encoder() -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = Dense()

        def forward(self, images: Tensor) -> object:
            return self.backbone(images)

    model, images = Wrapped(), torch.randn(2, 3, *SIZE)
    targets = torch.randint(CLASSES, (2, *SIZE))
    whole, inner = observe(model, images, targets), observe(model.backbone, images, targets)

    assert torch.equal(whole.class_gradient, inner.class_gradient)
    assert whole.last.shape == inner.last.shape

"""Detectors are run unchanged, for their losses and for what their matchers find."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from detectors import ALL, batch, fcos
from torch import Tensor, nn
from torch.nn.parallel import DataParallel

from diswot.errors import UserError
from diswot.observation.boxes import box_dicts
from diswot.observation.detectors import run_detector


def made(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build()


@pytest.mark.parametrize("name", ALL)
def test_losses_are_those_of_the_detector_in_training_mode(name: str) -> None:
    model, (images, targets) = made(ALL[name]), batch()
    torch.manual_seed(1)
    expected = model.train()(list(images), box_dicts(targets))
    torch.manual_seed(1)  # proposals are sampled
    found = run_detector(model, images, targets)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[part], expected[part]) for part in expected)
    assert all(value.requires_grad for value in found.values())


@pytest.mark.parametrize("name", ALL)
def test_modes_stay_and_normalisation_keeps_its_own(name: str) -> None:
    model = made(ALL[name]).eval()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    seen: list[bool] = []
    norms[0].register_forward_hook(lambda module, *_: seen.append(module.training))
    before = [norm.running_mean.clone() for norm in norms]
    run_detector(model, *batch())
    assert seen == [False] and not any(m.training for m in model.modules())
    for norm, mean in zip(norms, before, strict=True):
        assert torch.equal(norm.running_mean, mean)


def test_modes_are_put_back_after_an_error() -> None:
    model = made(fcos).eval()
    images, targets = batch()
    targets[0, 0, :4] = torch.tensor([9.0, 9, 9, 20])  # of no width
    with pytest.raises(AssertionError, match="positive height and width"):
        run_detector(model, images, targets)
    assert not any(m.training for m in model.modules())


def test_images_without_a_box() -> None:
    images, targets = batch()
    targets[..., 4] = -1
    for build in ALL.values():
        losses = run_detector(made(build), images, targets)
        assert all(value.isfinite() for value in losses.values())


class Wrapped(DataParallel):
    """A detector that is parallel over processes, in the form of its children alone."""

    def forward(self, *inputs: object) -> object:
        return self.module(*inputs)


def test_a_wrapped_detector_is_found_inside() -> None:
    model, (images, targets) = made(fcos).eval(), batch()
    found = run_detector(Wrapped(model), images, targets)
    assert found.keys() == run_detector(model, images, targets).keys()
    assert not model.training


def test_a_network_without_losses_is_one_line() -> None:
    class Plain(nn.Module):
        def forward(self, images: list[Tensor], targets: object) -> Tensor:
            return torch.stack(images).mean((2, 3))

    with pytest.raises(UserError, match="must return a dict of losses in training mode"):
        run_detector(Plain(), *batch())

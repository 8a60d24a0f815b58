"""A network that sees images at its own size."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from toys import LinearHead, seeded

from diswot.errors import UserError
from diswot.knowledge.losses import Loss
from diswot.knowledge.registry import KNOWLEDGE
from diswot.models.resized import ResizedInput, entered, without_resizing
from diswot.observation.observe import observe
from diswot.spaces.cifar_resnet import CifarResNet

GENERATOR = torch.Generator().manual_seed(0)
IMAGES, LABELS = torch.rand(4, 3, 8, 8, generator=GENERATOR), torch.arange(4)


class Sized(nn.Module):
    """Remembers the images that it is shown."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.shown = images
        return images.mean((2, 3))


def test_images_are_resized() -> None:
    """Twice as large and half as large, by hand: the means of pairs, with anti-aliasing."""
    model = Sized()
    ResizedInput(model, 4)(IMAGES)
    assert model.shown.shape == (4, 3, 4, 4)
    # Anti-aliased halving weighs four pixels a side by 1, 3, 3, 1 of 8.
    weights = torch.tensor([1.0, 3, 3, 1]) / 8
    patch = IMAGES[:, :, 1:5, 1:5]
    by_hand = torch.einsum("bchw,h,w->bc", patch, weights, weights)
    assert torch.allclose(model.shown[:, :, 1, 1], by_hand, atol=1e-6)
    ResizedInput(model, 16)(IMAGES)
    assert model.shown.shape == (4, 3, 16, 16)
    assert torch.allclose(model.shown[:, :, 0, 0], IMAGES[:, :, 0, 0])
    ResizedInput(model, 8)(IMAGES)
    assert model.shown is IMAGES


def test_what_is_inside() -> None:
    model = seeded(LinearHead).eval()
    resized = ResizedInput(model, 16)
    inner, images = entered(resized, IMAGES)
    assert inner is model and images.shape == (4, 3, 16, 16)
    assert torch.equal(inner(images), resized(IMAGES))
    assert entered(model, IMAGES) == (model, IMAGES)
    assert without_resizing(resized) is model is without_resizing(model)
    with pytest.raises(UserError, match="at least 1 pixel a side, not 0"):
        ResizedInput(model, 0)


@pytest.mark.parametrize("name", KNOWLEDGE)
def test_every_loss_takes_maps_of_other_images(name: str) -> None:
    teacher, student = (seeded(lambda: CifarResNet((1, 1, 1), 5)) for _ in range(2))
    pairs = entered(ResizedInput(teacher, 16), IMAGES), (student, IMAGES)
    taught, seen = (observe(*pair, LABELS, cam=True) for pair in pairs)
    assert taught.last.shape[2:] != seen.last.shape[2:]
    value = Loss(KNOWLEDGE[name], taught, seen)(taught, seen).detach()
    assert value.shape == () and torch.isfinite(value)

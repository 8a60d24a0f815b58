"""RandAugment, mixup and cutmix."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from diswot.training.mixing import mix, rand_augment

CLASSES = 5


def floats(count: int = 6, side: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, side, side, generator=generator), torch.arange(count) % CLASSES


def pictures(count: int = 6, side: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, side, side), generator=generator).to(torch.uint8)


class TestMix:
    def test_mixup_by_hand(self) -> None:
        """The share of the labels is the share of the pixels."""
        images, labels = floats()
        mixed, targets = mix(images.clone(), labels, CLASSES, 0.8, 0.0, seed=3)
        share = float(targets[0, 0])  # image 0 of class 0 is mixed with image 5, also of class 0
        assert share == 1
        share = float(targets[1, 1])  # image 1 with image 4, of class 4
        assert 0 < share < 1
        expected = share * images + (1 - share) * images.flip(0)
        torch.testing.assert_close(mixed, expected)
        hot = one_hot(labels, CLASSES).float()
        torch.testing.assert_close(targets, share * hot + (1 - share) * hot.flip(0))

    def test_cutmix_by_hand(self) -> None:
        """The share of the labels is the area that is left of the image."""
        images, labels = floats(side=32)
        mixed, targets = mix(images.clone(), labels, CLASSES, 0.0, 1.0, seed=2)
        pasted = (mixed == images.flip(0)).all(1)
        assert ((mixed == images).all(1) | pasted).all()
        share = float(targets[1, 1])
        assert 0 < share < 1 and share == pytest.approx(1 - float(pasted[1].float().mean()))
        rows, columns = pasted[1].any(1).sum(), pasted[1].any(0).sum()
        assert int(pasted[1].sum()) == int(rows) * int(columns)

    def test_both_take_turns(self) -> None:
        images, labels = floats(side=32)
        kinds = set()
        for seed in range(12):
            mixed, _ = mix(images.clone(), labels, CLASSES, 1.0, 1.0, seed)
            kinds.add(bool(((mixed == images) | (mixed == images.flip(0))).all()))
        assert kinds == {True, False}

    def test_seeds(self) -> None:
        images, labels = floats()
        before = np.random.get_state()
        first, again, other = (
            mix(images.clone(), labels, CLASSES, 1.0, 0.0, seed)[0] for seed in (1, 1, 2)
        )
        after = np.random.get_state()
        assert torch.equal(first, again) and not torch.equal(first, other)
        assert np.array_equal(before[1], after[1]) and before[2:] == after[2:]


class TestRandAugment:
    def test_each_image_by_its_own_seed(self) -> None:
        images, seeds = pictures(), torch.arange(6)
        changed = rand_augment(images, 9, seeds)
        assert changed.shape == images.shape and changed.dtype == torch.uint8
        assert not torch.equal(changed, images)
        order = torch.tensor([4, 0, 3])
        assert torch.equal(rand_augment(images[order], 9, seeds[order]), changed[order])
        assert not torch.equal(rand_augment(images, 9, seeds + 6), changed)

    def test_the_magnitude_is_how_far_an_image_is_turned(self) -> None:
        """A ramp from left to right, seen by all operations; of magnitude 0 most do nothing."""
        images = torch.arange(0, 256, 16).to(torch.uint8).expand(40, 3, 16, 16).contiguous()
        means = [
            (rand_augment(images, magnitude, torch.arange(40)).float() - images).abs().mean()
            for magnitude in (0, 10, 30)
        ]
        assert means[0] < means[1] < means[2]

    def test_random_state_is_put_back(self) -> None:
        before = torch.get_rng_state()
        rand_augment(pictures(), 9, torch.arange(6))
        assert torch.equal(torch.get_rng_state(), before)

"""Noise and digits."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from diswot.data.dataset import whole
from diswot.data.registry import create_dataset
from diswot.errors import UserError


class TestDigits:
    def test_split_is_fixed_and_stratified(self) -> None:
        digits = create_dataset("digits")
        assert digits.train is not None and digits.test is not None
        assert (len(digits.train), len(digits.test)) == (1437, 360)
        counts = [Counter(split.labels.tolist()) for split in (digits.train, digits.test)]
        for label in range(10):
            share = counts[1][label] / (counts[0][label] + counts[1][label])
            assert share == pytest.approx(0.2, abs=0.005)
        again = create_dataset("digits")
        assert again.test is not None
        assert torch.equal(again.test.labels, digits.test.labels)

    def test_images_are_grey_bytes_of_scikit_learn(self) -> None:
        from sklearn.datasets import load_digits

        digits = create_dataset("digits", img_size=8)
        parts = [whole(split)[0] for split in (digits.train, digits.test) if split]
        images = torch.cat(parts)
        assert images.shape == (1797, 3, 8, 8) and images.dtype == torch.uint8
        assert torch.equal(images[:, 0], images[:, 1]) and torch.equal(images[:, 0], images[:, 2])
        expected = np.rint(load_digits().images * 255 / 16).astype(np.uint8)
        assert sorted(map(bytes, images[:, 0].numpy())) == sorted(map(bytes, expected))

    @pytest.mark.parametrize("size", [None, 8, 20, 32])
    def test_any_size(self, size: int | None) -> None:
        digits = create_dataset("digits", img_size=size)
        side = size or 32
        assert digits.size == side and digits.image_shape == (3, side, side)
        assert digits.train is not None
        assert digits.train.read([0, 5]).shape == (2, 3, side, side)
        assert len(digits.classes) == 10

    def test_training_images_are_normal(self) -> None:
        digits = create_dataset("digits", img_size=8)
        assert digits.train is not None
        values = digits.normalise(whole(digits.train)[0])
        assert float(values.mean()) == pytest.approx(0, abs=1e-4)
        assert float(values.std()) == pytest.approx(1, abs=1e-4)


class TestNoise:
    def test_is_normal_and_as_asked(self) -> None:
        noise = create_dataset("noise", num_classes=7, img_size=12)
        images, labels = noise.batch(50, seed=3)
        assert images.shape == (50, 3, 12, 12) and noise.image_shape == (3, 12, 12)
        assert set(labels.tolist()) == set(range(7))
        assert abs(float(images.mean())) < 0.05 and abs(float(images.std()) - 1) < 0.05
        assert noise.train is None and noise.test is None

    def test_hundred_classes_of_32_pixels_if_not_asked(self) -> None:
        noise = create_dataset("noise")
        assert (len(noise.classes), noise.size) == (100, 32)

    @pytest.mark.parametrize("classes", [1, 0, -3])
    def test_too_few_classes(self, classes: int) -> None:
        with pytest.raises(UserError, match=f"at least 2 classes, not {classes}"):
            create_dataset("noise", num_classes=classes)

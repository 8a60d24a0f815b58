"""Reading a split, and the batches that are scored on."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from diswot.data.dataset import Split, balanced, whole
from diswot.data.registry import create_dataset
from diswot.errors import UserError

quick = settings(derandomize=True, deadline=None, max_examples=50, database=None)


class TestWhole:
    def test_reads_in_parts_and_tells(self) -> None:
        pixels = torch.randint(0, 256, (1234, 3, 2, 2), dtype=torch.uint8)
        asked: list[int] = []

        def read(indices: Any) -> Tensor:
            asked.append(len(indices))
            return pixels[torch.as_tensor(indices)]

        counts: list[int] = []
        images, labels = whole(Split(torch.arange(1234), read), on_read=counts.append)
        assert torch.equal(images, pixels) and torch.equal(labels, torch.arange(1234))
        assert max(asked) <= 500 and sum(asked) == 1234
        assert counts == sorted(counts) and counts[-1] == 1234

    def test_refuses_floats(self) -> None:
        split = Split(torch.arange(3), lambda indices: torch.rand(len(indices), 3, 2, 2))
        with pytest.raises(UserError, match="must be bytes"):
            whole(split)


class TestBatch:
    @quick
    @given(
        counts=st.lists(st.integers(0, 12), min_size=1, max_size=8).filter(any),
        seed=st.integers(0, 2**32),
        share=st.floats(0, 1),
    )
    def test_classes_are_as_even_as_can_be(
        self, counts: list[int], seed: int, share: float
    ) -> None:
        labels = np.repeat(np.arange(len(counts)), counts)
        size = max(1, round(share * len(labels)))
        chosen = balanced(labels, size, np.random.default_rng(seed))
        assert len(set(chosen)) == size
        drawn = Counter(int(labels[i]) for i in chosen)
        most = max(drawn.values())
        for label, count in enumerate(counts):
            assert drawn[label] >= min(count, most - 1)

    @quick
    @given(size=st.integers(2, 300), classes=st.integers(2, 120), seed=st.integers(0, 10**6))
    def test_noise_labels_are_even(self, size: int, classes: int, seed: int) -> None:
        _, labels = create_dataset("noise", num_classes=classes, img_size=1).batch(size, seed)
        counts = torch.bincount(labels, minlength=classes)
        assert int(counts.max() - counts.min()) <= 1 and int(counts.sum()) == size

    @pytest.mark.parametrize("name", ["noise", "digits"])
    def test_same_seed_same_batch_in_any_order(self, name: str) -> None:
        made = create_dataset(name, img_size=8)
        first = [made.batch(20, seed=1, repeat=r) for r in (0, 1, 2)]
        again = [create_dataset(name, img_size=8).batch(20, seed=1, repeat=r) for r in (2, 1, 0)][
            ::-1
        ]
        for one, other in zip(first, again, strict=True):
            assert torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)

    @pytest.mark.parametrize("name", ["noise", "digits"])
    def test_seeds_and_repeats_differ(self, name: str) -> None:
        made = create_dataset(name, img_size=8)
        batches = [made.batch(20, seed, repeat).images for seed in (0, 1) for repeat in (0, 1)]
        for i, one in enumerate(batches):
            assert not any(torch.equal(one, other) for other in batches[:i])

    def test_the_global_random_states_are_not_touched(self) -> None:
        state, numpys = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[union-attr]
        create_dataset("noise").batch(4)
        create_dataset("digits", img_size=8).batch(4)
        assert torch.equal(torch.get_rng_state(), state)
        assert np.array_equal(np.random.get_state()[1], numpys)

    def test_images_are_laid_out_for_speed_and_normalised(self) -> None:
        digits = create_dataset("digits", img_size=8)
        images, labels = digits.batch(1000)
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert images.dtype == torch.float32 and labels.dtype == torch.int64
        assert math.isclose(float(images.std()), 1, abs_tol=0.02)

    def test_images_belong_to_their_labels(self) -> None:
        digits = create_dataset("digits", img_size=8)
        assert digits.train is not None
        pixels, labels = whole(digits.train)
        of = {
            bytes(image[0].numpy()): int(label) for image, label in zip(pixels, labels, strict=True)
        }
        images, drawn = digits.batch(50, seed=2)
        back = (images * digits.std[0] + digits.mean[0]).mul(255).round().to(torch.uint8)
        assert [of[bytes(image[0].numpy())] for image in back.contiguous()] == drawn.tolist()

    def test_larger_than_the_set(self) -> None:
        with pytest.raises(UserError, match="batch takes 1438; --batch-size 1437 takes all"):
            create_dataset("digits", img_size=8).batch(1438)
        assert len(create_dataset("digits", img_size=8).batch(1437).labels) == 1437

    @pytest.mark.parametrize("size", [1, 0, -1])
    @pytest.mark.parametrize("name", ["noise", "digits"])
    def test_too_small(self, name: str, size: int) -> None:
        with pytest.raises(UserError, match=f"at least 2 images, not {size}"):
            create_dataset(name, img_size=8).batch(size)

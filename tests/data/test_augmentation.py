"""Shifts, mirror images, cuts and blanks."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Generator, Tensor

from diswot.data.augmentation import (
    Augmentation,
    AugmentationDraws,
    apply,
    apply_to_boxes,
    draw,
    select_draws,
)


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def augment(images: Tensor, changes: Augmentation, generator: Generator) -> Tensor:
    return apply(images, changes, draw(changes, len(images), tuple(images.shape[2:]), generator))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("side", [1, 3, 4])
def test_cutout_by_hand(dtype: torch.dtype, side: int) -> None:
    images = torch.randint(1, 256, (50, 3, 6, 6), generator=generator()).to(dtype)
    changes = Augmentation(cutout=side)
    drawn = draw(changes, 50, (6, 6), generator(3))
    made = apply(images, changes, drawn)
    assert drawn.holes is not None and made.dtype == dtype
    for image, old, (row, column) in zip(made, images, drawn.holes.tolist(), strict=True):
        top, left = row - side // 2, column - side // 2
        expected = old.clone()
        expected[:, max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = 0
        assert torch.equal(image, expected)
    assert {(0, 0), (5, 5)} <= set(
        map(tuple, draw(changes, 999, (6, 6), generator()).holes.tolist())
    )


def test_a_cut_of_everything_changes_nothing() -> None:
    images = torch.randint(0, 256, (4, 3, 6, 6), generator=generator()).to(torch.uint8)
    whole = AugmentationDraws(frames=torch.tensor([0.0, 0, 1, 1]).expand(4, 4))
    assert torch.equal(apply(images, Augmentation(area=0.5), whole), images)


def test_a_cut_of_a_quarter_is_that_quarter_enlarged() -> None:
    image = torch.zeros(1, 1, 8, 8)
    image[..., 4:, :4] = 100.0
    quarter = AugmentationDraws(
        frames=torch.tensor([[-0.5, 0.5, 0.5, 0.5]])
    )  # x to the left, y below
    made = apply(image, Augmentation(area=0.25), quarter)
    assert made[..., 1:, :-1].eq(100).all() and made.shape == image.shape
    other = AugmentationDraws(frames=torch.tensor([[0.5, 0.5, 0.5, 0.5]]))
    assert apply(image, Augmentation(area=0.25), other)[..., 1:, 1:].eq(0).all()


@pytest.mark.parametrize("area", [0.08, 0.5, 0.99])
def test_cuts_lie_within_the_image_and_are_as_large_as_drawn(area: float) -> None:
    x, y, width, height = draw(Augmentation(area=area), 2000, (32, 32), generator()).frames.T
    for centre, half in ((x, width), (y, height)):
        assert (centre.abs() + half <= 1 + 1e-6).all()
    share, stretch = width * height, width / height
    assert share.max() <= 1 and share.min() >= area * 0.85  # a side is cut to the image's
    assert stretch.max() <= 4 / 3 + 1e-5 and stretch.min() >= 3 / 4 - 1e-5
    if area < 0.9:
        assert share.mean() == pytest.approx((1 + area) / 2, abs=0.05)


def test_parts_of_a_batch_see_what_the_whole_sees() -> None:
    images = torch.randint(0, 256, (10, 3, 8, 8), generator=generator()).to(torch.uint8)
    changes = Augmentation(crop=2, area=0.5, flip=True, cutout=3)
    drawn = draw(changes, 10, (8, 8), generator(1))
    parts = [apply(images[s], changes, select_draws(drawn, s)) for s in (slice(0, 4), slice(4, 10))]
    whole = augment(images, changes, generator(1))
    assert torch.equal(torch.cat(parts), whole) and not torch.equal(whole, images)


def test_nothing_is_nothing() -> None:
    images = torch.rand(3, 3, 5, 5)
    assert augment(images, Augmentation(), generator()) is images


class TestAugment:
    @pytest.mark.parametrize("crop", [0, 1, 4])
    @pytest.mark.parametrize("flip", [False, True])
    @pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
    def test_naive(self, crop: int, flip: bool, dtype: torch.dtype) -> None:
        images = torch.randint(1, 256, (40, 3, 6, 6)).to(dtype)
        kept = images.clone()
        made = augment(images, Augmentation(crop, flip=flip), torch.Generator().manual_seed(5))
        generator = torch.Generator().manual_seed(5)
        shifts = torch.randint(0, 2 * crop + 1, (40, 2), generator=generator) if crop else None
        mirrored = torch.rand(40, generator=generator) < 0.5 if flip else torch.zeros(40)
        for i in range(40):
            down, right = (int(s) - crop for s in shifts[i]) if shifts is not None else (0, 0)
            for y in range(6):
                for x in range(6):
                    from_x = (5 - x if mirrored[i] else x) + right
                    inside = 0 <= y + down < 6 and 0 <= from_x < 6
                    expected = images[i, :, y + down, from_x] if inside else torch.zeros(3)
                    assert made[i, :, y, x].tolist() == expected.tolist()
        assert made.dtype == dtype and torch.equal(images, kept)

    def test_every_shift_and_both_sides_occur(self) -> None:
        image = torch.zeros(1, 1, 5, 5)
        image[0, 0, 2, 2] = 1
        made = augment(
            image.expand(2000, -1, -1, -1), Augmentation(2), torch.Generator().manual_seed(0)
        )
        places = Counter(map(tuple, made.nonzero()[:, 2:].tolist()))
        assert len(places) == 25 and min(places.values()) > 40
        image[0, 0, 2] = torch.arange(5)
        mirror = Augmentation(flip=True)
        made = augment(image.expand(2000, -1, -1, -1), mirror, torch.Generator().manual_seed(0))
        assert 900 < int((made[:, 0, 2, 0] == 4).sum()) < 1100


class TestBoxes:
    """A drawn rectangle and its box are moved alike."""

    SIZE = (60, 90)  # height and width

    def rectangles(self, count: int) -> tuple[Tensor, Tensor]:
        """Images with a filled rectangle of ones, count x 1 x 60 x 90, and their boxes."""
        random = generator(7)
        images, boxes = torch.zeros(count, 1, *self.SIZE), torch.zeros(count, 2, 6)
        boxes[:, 1, 4] = -1
        for image, box in zip(images, boxes, strict=True):
            width, height = torch.randint(8, 40, (2,), generator=random).tolist()
            left = int(torch.randint(0, 90 - width + 1, (), generator=random))
            top = int(torch.randint(0, 60 - height + 1, (), generator=random))
            image[:, top : top + height, left : left + width] = 1
            box[0] = torch.tensor([left, top, left + width, top + height, 2, 1])
        return images, boxes

    def moved(self, changes: Augmentation, count: int) -> tuple[Tensor, Tensor, Tensor]:
        images, boxes = self.rectangles(count)
        drawn = draw(changes, count, self.SIZE, generator(1))
        made = apply_to_boxes(boxes, changes, drawn, self.SIZE)
        assert (made[:, 1] == torch.tensor([0.0, 0, 0, 0, -1, 0])).all()
        return apply(images, changes, drawn)[:, 0], made[:, 0], boxes[:, 0]

    @staticmethod
    def extent(image: Tensor) -> Tensor:
        """x1, y1, x2, y2 of the bright pixels."""
        rows, columns = (image > 0.5).nonzero().T
        return torch.stack((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))

    def test_shifts_and_mirrors_are_exact(self) -> None:
        images, made, old = self.moved(Augmentation(crop=12, flip=True), 200)
        kept = made[:, 4] == 2
        assert 150 < kept.sum() < 200 or kept.all()
        for image, box in zip(images[kept], made[kept], strict=True):
            assert box.tolist() == [*self.extent(image).tolist(), 2, 1]
        assert not torch.equal(made, old)

    def test_crops_shifts_and_mirrors_are_those_of_the_pixels(self) -> None:
        changes = Augmentation(crop=5, area=0.2, flip=True)
        images, made, _ = self.moved(changes, 300)
        kept = made[:, 4] == 2
        assert 200 < kept.sum() < 290
        for image, box in zip(images[kept], made[kept], strict=True):
            assert (self.extent(image) - box[:4]).abs().max() <= 1.01

    def test_a_box_of_which_little_remains_becomes_padding(self) -> None:
        changes = Augmentation(area=0.25)
        frames = torch.tensor([[-0.5, -0.5, 0.5, 0.5]])  # the quarter at the top left
        boxes = torch.tensor(
            [
                [40.0, 10, 50, 20, 0, 0],  # half of its width is inside
                [43.2, 10, 51.2, 20, 1, 0],  # 22 %
                [43.6, 10, 51.6, 20, 2, 0],  # 17 %
                [50.0, 10, 60, 20, 3, 0],  # outside
                [10.0, 10, 10.4, 20, 4, 0],  # 0.8 pixels wide when enlarged
                [10.0, 10, 10.6, 20, 5, 0],  # 1.2
            ]
        )[None]
        made = apply_to_boxes(boxes, changes, AugmentationDraws(frames=frames), self.SIZE)[0]
        assert made[:, 4].tolist() == [0, 1, -1, -1, -1, 5]
        assert made[0].tolist() == pytest.approx([80, 20, 90, 40, 0, 0], abs=1e-4)
        assert made[3].tolist() == [0, 0, 0, 0, -1, 0]

    def test_what_a_crop_has_cut_off_a_shift_does_not_bring_back(self) -> None:
        drawn = AugmentationDraws(
            frames=torch.tensor([[0.5, 0.0, 0.5, 1.0]]), shifts=torch.tensor([[9, 0]])
        )
        boxes = torch.tensor([[[40.0, 0, 50, 60, 0, 0]]])  # from -10 to 10 in the crop, then + 9
        made = apply_to_boxes(boxes, Augmentation(crop=9, area=0.5), drawn, self.SIZE)
        assert made[0, 0].tolist() == pytest.approx([9, 0, 19, 60, 0, 0], abs=1e-4)

    def test_nothing_is_nothing(self) -> None:
        _, boxes = self.rectangles(3)
        assert torch.equal(
            apply_to_boxes(boxes, Augmentation(), AugmentationDraws(), self.SIZE), boxes
        )

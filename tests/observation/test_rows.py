from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate

from diswot.data.dataset import UNLABELLED
from diswot.errors import UserError
from diswot.observation.rows import (
    IGNORED,
    MOST_ROWS,
    PixelRows,
    logits_of,
    mean_cross_entropy,
    summed_cross_entropy,
)

CLASSES = 3


def masks(*shape: int, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(IGNORED, CLASSES, shape, generator=random)


def test_an_ignored_pixel_is_an_unlabelled_one() -> None:
    assert IGNORED == UNLABELLED


def test_rows_are_all_pixels_with_a_class_in_order() -> None:
    targets = masks(2, 3, 4)
    expected = [
        (b, y, x) for b in range(2) for y in range(3) for x in range(4) if targets[b, y, x] >= 0
    ]
    rows = PixelRows(targets)
    assert [tuple(each) for each in torch.stack(rows.places, 1).tolist()] == expected
    assert rows.classes.tolist() == [int(targets[place]) for place in expected]


def test_of_many_pixels_the_same_4096_are_drawn_each_time() -> None:
    targets = masks(2, 60, 80)
    first, second = (torch.stack(PixelRows(targets).places, 1) for _ in range(2))
    assert first.shape == (MOST_ROWS, 3)
    assert torch.equal(first, second)
    assert len({tuple(each) for each in first.tolist()}) == MOST_ROWS
    assert (PixelRows(targets).classes >= 0).all()


def test_a_batch_without_classes_has_no_rows() -> None:
    with pytest.raises(UserError, match="all pixels of the batch are ignored"):
        _ = PixelRows(torch.full((2, 3, 4), IGNORED)).places


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("size", [(2, 3), (5, 4), (7, 12), (20, 30), (1, 1)])
def test_a_map_is_read_as_torch_interpolates_it(size: tuple[int, int], aligned: bool) -> None:
    targets = masks(2, 7, 12)
    features = torch.randn(2, 5, *size, dtype=torch.float64)
    whole = interpolate(features, (7, 12), mode="bilinear", align_corners=aligned)
    rows = PixelRows(targets)
    expected = whole.permute(0, 2, 3, 1)[targets >= 0]
    torch.testing.assert_close(rows.read(features, align_corners=aligned), expected)


def test_the_loss_is_the_mean_over_pixels_with_a_class() -> None:
    targets, logits = masks(2, 6, 8), torch.randn(2, CLASSES, 3, 4)
    whole = interpolate(logits, (6, 8), mode="bilinear").permute(0, 2, 3, 1)
    expected = cross_entropy(whole[targets >= 0], targets[targets >= 0])
    torch.testing.assert_close(mean_cross_entropy({"out": logits, "aux": None}, targets), expected)


def test_without_classes_the_loss_is_zero_and_teaches_nothing() -> None:
    logits = torch.randn(2, CLASSES, 4, 5, requires_grad=True)
    loss = mean_cross_entropy(logits, torch.full((2, 4, 5), IGNORED))
    loss.backward()
    assert loss == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_the_summed_loss_counts_each_image_once() -> None:
    targets, logits = masks(3, 4, 5), torch.randn(3, CLASSES, 4, 5)
    targets[2] = IGNORED
    alone = [mean_cross_entropy(logits[i : i + 1], targets[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(summed_cross_entropy(logits, targets), alone[0] + alone[1])


def test_labels_of_images_have_the_usual_losses() -> None:
    logits, labels = torch.randn(4, CLASSES), torch.tensor([0, 2, 1, 1])
    assert torch.equal(mean_cross_entropy(logits, labels), cross_entropy(logits, labels))
    summed = cross_entropy(logits, labels, reduction="sum")
    assert torch.equal(summed_cross_entropy(logits, labels), summed)


@pytest.mark.parametrize("outputs", [None, [torch.zeros(2, 3)], {"aux": torch.zeros(2, 3)}])
def test_outputs_without_logits_are_refused(outputs: object) -> None:
    with pytest.raises(UserError, match="the model must return logits"):
        logits_of(outputs)

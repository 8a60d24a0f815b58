"""Pictures for a page, read back pixel by pixel."""

from __future__ import annotations

import base64
import io

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from diswot.reports.pictures import SIDE, overlay, picture


def pixels(uri: str) -> np.ndarray:
    head, _, data = uri.partition(",")
    assert head == "data:image/png;base64"
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.size == (SIDE, SIDE) and image.mode == "RGB"
    return np.asarray(image)


def test_small_images_become_whole_squares() -> None:
    image = torch.tensor([[[0.0, 1.0], [0.5, 0.2]]]).expand(3, 2, 2)

    shown = pixels(picture(image))

    half = SIDE // 2
    squares = [shown[:half, :half], shown[:half, half:], shown[half:, :half], shown[half:, half:]]
    assert [np.unique(square).tolist() for square in squares] == [[0], [255], [128], [51]]


def test_large_images_are_averaged() -> None:
    """Black and white in turn, pixel by pixel, four to each that is shown."""
    board = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).repeat(SIDE, SIDE)

    assert set(np.unique(pixels(picture(board.expand(3, -1, -1))))) <= {127, 128}


def colour(activation: float, grey: float) -> list[int]:
    warm = np.array(matplotlib.colormaps["inferno"](activation)[:3])
    share = 0.85 * activation**0.5
    return [round(255 * value) for value in grey * (1 - share) + warm * share]


@pytest.mark.parametrize("scale", [1.0, 1e-3, 250.0])
def test_activation_is_scaled_to_its_own_largest_value(scale: float) -> None:
    image = torch.tensor([0.2, 0.4, 0.6])[:, None, None].expand(3, 8, 8)
    activation = scale * torch.tensor([[0.0, 0.0], [0.0, 1.0]])

    shown = pixels(overlay(image, activation))

    assert shown[0, 0].tolist() == [102] * 3  # its mean, in grey
    assert shown[-1, -1] == pytest.approx(colour(1.0, 0.4), abs=1)


@pytest.mark.parametrize("activation", [torch.zeros(2, 2), -torch.ones(3, 3)])
def test_without_activation_the_image_is_grey(activation: Tensor) -> None:
    image = torch.tensor([0.2, 0.4, 0.6])[:, None, None].expand(3, 8, 8)

    assert np.unique(pixels(overlay(image, activation))).tolist() == [102]

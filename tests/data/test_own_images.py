from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diswot.data.own_images import normalisation_of, rgb, undivided
from diswot.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(np.uint8)
TENSOR = torch.from_numpy(PIXELS).permute(2, 0, 1)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.fromarray(PIXELS), PIXELS),
        (PIXELS, PIXELS),
        (TENSOR, PIXELS),
        (TENSOR / 255, PIXELS),
        (Image.fromarray(PIXELS[..., 0]), PIXELS[..., :1].repeat(3, 2)),
        (PIXELS[..., 0], PIXELS[..., :1].repeat(3, 2)),
        (PIXELS[..., :1], PIXELS[..., :1].repeat(3, 2)),
        (TENSOR[:1], PIXELS[..., :1].repeat(3, 2)),
        (TENSOR[:1].double() / 255, PIXELS[..., :1].repeat(3, 2)),
        (np.dstack([PIXELS, PIXELS[..., :1]]), PIXELS),
    ],
)
def test_forms_of_one_image(image: Any, expected: np.ndarray) -> None:
    assert np.array_equal(np.array(rgb(image, None)), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_normalisation_is_undone(channels: int) -> None:
    mean, std = (0.5, 0.4, 0.3), (0.25, 0.2, 0.1)
    centre, spread = (torch.tensor(each).view(3, 1, 1)[:channels] for each in (mean, std))
    image = (TENSOR[:channels] / 255 - centre) / spread
    found = np.array(rgb(image, (mean, std)))
    assert np.array_equal(found[..., :channels], PIXELS[..., :channels])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("a.png", "a str is no image: return a PIL image, an array or a tensor"),
        (PIXELS / 255.0, r"an array must have bytes, H x W x 3, not float64 \(4, 5, 3\)"),
        (PIXELS.transpose(2, 0, 1)[:2], r"not uint8 \(2, 4, 5\)"),
        (TENSOR.permute(1, 2, 0), r"a tensor must be 3 x H x W or 1 x H x W, not \(4, 5, 3\)"),
        (TENSOR.long(), "a tensor must have bytes or floats, not torch.int64"),
        (TENSOR.float(), r"its values are 0 to 25\d, not 0 to 1: leave the normalisation out"),
        (torch.full((3, 4, 5), torch.nan), "its values are nan to nan, not 0 to 1"),
        (torch.empty(3, 0, 5), r"must be 3 x H x W or 1 x H x W, not \(3, 0, 5\)"),
        (Image.fromarray(PIXELS[..., 0].astype(np.uint16)), "more than 8 bits a pixel"),
    ],
)
def test_what_is_no_image(image: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        rgb(image, None)


class Normalize:
    mean, std = [0.5], [0.25]


class Compose:
    transforms = (object(), Normalize())


class Data:
    transform: Any = Compose()


def test_the_normalisation_of_transforms() -> None:
    data: Any = Data()
    part: Any = torch.utils.data.Subset(torch.utils.data.Subset(data, [0]), [0])
    assert undivided(part) is data
    assert normalisation_of(data) == ((0.5,) * 3, (0.25,) * 3)
    data.transform = Normalize()
    assert normalisation_of(data) == ((0.5,) * 3, (0.25,) * 3)
    for other in (None, object(), [Normalize()]):
        data.transform = other
        assert normalisation_of(data) is None

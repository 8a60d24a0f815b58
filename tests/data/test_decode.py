"""Files of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.pictures import folder
from PIL import Image

from diswot.data.decode import opened_image, opened_mask, size_of
from diswot.data.registry import create_dataset
from diswot.errors import UserError


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_is_that_of_the_decoded_image(tmp_path: Path, orientation: int) -> None:
    exif, place = Image.Exif(), str(tmp_path / "image.jpg")
    exif[0x0112] = orientation
    Image.new("RGB", (8, 6)).save(place, exif=exif)
    assert size_of(place) == opened_image(place, place).size


class TestDecoding:
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
    def test_turned_as_exif_says(self, tmp_path: Path, kind: str) -> None:
        """Orientation 6: the first row of the file is the right side of the picture."""
        pixels = np.zeros((8, 8, 3), dtype=np.uint8)
        pixels[:4] = 255
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            for i in range(5):
                exif = Image.Exif()
                exif[0x0112] = 6
                place = tmp_path / name / f"{i}.{kind.lower()}"
                Image.fromarray(pixels).save(place, kind, exif=exif)
        found = create_dataset(str(tmp_path))
        assert found.train is not None
        image = found.train.read([0])[0].float()
        assert float(image[:, :, 6:].min()) > 200 and float(image[:, :, :2].max()) < 50

    def test_a_batch_decodes_only_what_it_holds(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder(tmp_path, {"a": 30, "b": 30})
        opened: list[str] = []
        real = Image.open

        def spy(path: Any) -> Any:
            opened.append(str(path))
            return real(path)

        monkeypatch.setattr(Image, "open", spy)
        found = create_dataset(str(tmp_path))
        assert len(opened) == 1  # for the size
        found.batch(6)
        assert len(opened) == 7


@pytest.mark.parametrize("name", [None, "row 3"])
def test_a_damaged_mask_is_named(tmp_path: Path, name: str | None) -> None:
    place = tmp_path / "mask.png"
    place.write_bytes(b"no mask")
    with pytest.raises(UserError, match=f"^{name or place} cannot be read as a mask$"):
        opened_mask(str(place), name)

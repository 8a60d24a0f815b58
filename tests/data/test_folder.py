"""A folder of images."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from data.pictures import as_bytes, folder, paint, save
from PIL import Image

from diswot.data.dataset import whole
from diswot.data.registry import create_dataset
from diswot.errors import UserError


class TestFolder:
    def test_with_train_and_test(self, tmp_path: Path) -> None:
        folder(tmp_path / "train", {"cat": 3, "dog": 4})
        folder(tmp_path / "test", {"cat": 2, "dog": 1})
        found = create_dataset(str(tmp_path))
        assert found.train is not None and found.test is not None
        assert found.classes == ("cat", "dog") and found.size == 8
        assert found.train.labels.tolist() == [0, 0, 0, 1, 1, 1, 1]
        assert found.test.labels.tolist() == [0, 0, 1]
        assert torch.equal(found.train.read([0])[0], as_bytes(paint(300)))
        assert torch.equal(found.test.read([2, 1])[1], as_bytes(paint(301)))

    @pytest.mark.parametrize("name", ["val", "valid", "validation"])
    def test_other_names_of_test(self, tmp_path: Path, name: str) -> None:
        folder(tmp_path / "train", {"a": 2, "b": 2})
        folder(tmp_path / name, {"a": 1, "b": 1})
        found = create_dataset(str(tmp_path))
        assert found.test is not None and len(found.test) == 2

    @pytest.mark.parametrize("inner", ["", "train"])
    def test_without_test_a_fifth_is_held_out(self, tmp_path: Path, inner: str) -> None:
        folder(tmp_path / inner, {"a": 10, "b": 20, "c": 5})
        found = create_dataset(str(tmp_path))
        assert found.train is not None and found.test is not None
        assert found.classes == ("a", "b", "c")
        assert Counter(found.test.labels.tolist()) == {0: 2, 1: 4, 2: 1}
        assert Counter(found.train.labels.tolist()) == {0: 8, 1: 16, 2: 4}
        again = create_dataset(str(tmp_path))
        assert again.test is not None
        assert torch.equal(whole(again.test)[0], whole(found.test)[0])

    def test_grey_transparent_palette_and_odd_sizes(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            save(tmp_path / name / "0.png", paint(0, 9, 7))
            save(tmp_path / name / "1.png", paint(1, 30, 11), "L")
            save(tmp_path / name / "2.png", paint(2, 5, 6), "RGBA")
            save(tmp_path / name / "3.png", paint(3, 64, 64), "P")
            save(tmp_path / name / "4.jpg", paint(4, 16, 16), "CMYK")
            palette = Image.fromarray(paint(5)).convert("P")
            palette.save(tmp_path / name / "5.png", transparency=bytes(range(256)))
        found = create_dataset(str(tmp_path))
        assert found.train is not None and found.test is not None
        images = torch.cat([whole(found.train)[0], whole(found.test)[0]])
        side = found.size
        assert images.shape == (12, 3, side, side) and images.dtype == torch.uint8
        grey = (images[:, 0] == images[:, 1]).flatten(1).all(1)
        assert int(grey.sum()) == 2

    def test_centre_of_the_scaled_image(self, tmp_path: Path) -> None:
        wide = np.zeros((4, 12, 3), dtype=np.uint8)
        wide[:, 4:8] = 200
        for name in ("a", "b"):
            for i in range(5):
                save(tmp_path / name / f"{i}.png", wide)
        found = create_dataset(str(tmp_path))
        assert found.train is not None and found.size == 4
        assert torch.equal(found.train.read([0]), torch.full((1, 3, 4, 4), 200, dtype=torch.uint8))
        assert create_dataset(str(tmp_path), img_size=6).train.read([0]).shape == (1, 3, 6, 6)  # type: ignore[union-attr]

    def test_size_of_a_large_image_is_limited(self, tmp_path: Path) -> None:
        folder(tmp_path, {"a": 5, "b": 5}, width=500, height=300)
        assert create_dataset(str(tmp_path)).size == 224

    def test_empty(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=f"no images in {tmp_path}"):
            create_dataset(str(tmp_path))

    def test_only_other_files(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "notes.txt").write_text("no image")
        with pytest.raises(UserError, match=f"no images in {tmp_path}"):
            create_dataset(str(tmp_path))

    def test_class_without_images(self, tmp_path: Path) -> None:
        folder(tmp_path, {"a": 5, "c": 5})
        (tmp_path / "b").mkdir()
        with pytest.raises(
            UserError, match=f"no images in {tmp_path / 'b'}, the folder of a class"
        ):
            create_dataset(str(tmp_path))

    def test_one_class(self, tmp_path: Path) -> None:
        folder(tmp_path, {"a": 5})
        with pytest.raises(UserError, match="has one class, a, and needs at least 2"):
            create_dataset(str(tmp_path))

    def test_other_classes_in_test(self, tmp_path: Path) -> None:
        folder(tmp_path / "train", {"a": 2, "b": 2})
        folder(tmp_path / "test", {"a": 2, "c": 2})
        with pytest.raises(UserError, match="hold different classes, such as b"):
            create_dataset(str(tmp_path))

    def test_too_few_to_hold_out(self, tmp_path: Path) -> None:
        folder(tmp_path, {"a": 1, "b": 9})
        with pytest.raises(
            UserError,
            match=r"hold out 20 % of each class for testing: \d+ of \d+ classes, \d of the rarest$",
        ):
            create_dataset(str(tmp_path))

    @pytest.mark.parametrize("damage", ["text", "empty", "cut"])
    def test_unreadable_image(self, tmp_path: Path, damage: str) -> None:
        folder(tmp_path, {"a": 5, "b": 5}, 40, 40)
        for broken in tmp_path.glob("*/3.png"):
            content = broken.read_bytes()
            kinds = {"text": b"no image", "empty": b"", "cut": content[: len(content) // 2]}
            broken.write_bytes(kinds[damage])
        found = create_dataset(str(tmp_path), img_size=8)
        assert found.train is not None and found.test is not None
        with pytest.raises(UserError, match=r"3.png cannot be read as an image"):
            for split in (found.train, found.test):
                whole(split)

    def test_sixteen_bits_are_refused_not_clipped(self, tmp_path: Path) -> None:
        folder(tmp_path, {"a": 4, "b": 5})
        Image.fromarray(np.full((8, 8), 40000, dtype=np.uint16)).save(tmp_path / "a" / "9.png")
        found = create_dataset(str(tmp_path), img_size=8)
        assert found.train is not None and found.test is not None
        with pytest.raises(UserError, match="more than 8 bits"):
            for split in (found.train, found.test):
                whole(split)

"""A folder of images."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from data.pictures import as_bytes, folder, paint, save
from PIL import Image, features

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
            match=r"hold out 20 % of each class for testing: 10 of 2 classes, 1 of the rarest, a$",
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


TWO = {"cat": 5, "dog": 6}


class TestSplits:
    """A folder with the name of a split is no class."""

    @pytest.mark.parametrize(
        ("train", "test"),
        [
            ("Train", "Test"),
            ("training", "validation"),
            ("TRAIN", "Val"),
            ("training_set", "test_set"),
            ("train2017", "val2017"),
            ("Train", "dev"),
            ("trainset", "testing"),
            ("seg_train", "seg_test"),
            ("trainData", "testData"),
            ("TrainingSplit", "ValSplit"),
        ],
    )
    def test_names_of_splits(self, tmp_path: Path, train: str, test: str) -> None:
        folder(tmp_path / train, TWO)
        folder(tmp_path / test, {"cat": 1, "dog": 2})
        found = create_dataset(str(tmp_path))
        assert found.train is not None and found.test is not None
        assert found.classes == ("cat", "dog")
        assert found.train.labels.tolist() == [0] * 5 + [1] * 6
        assert found.test.labels.tolist() == [0, 1, 1]

    @pytest.mark.parametrize("name", ["TRAIN", "Training"])
    def test_a_fifth_of_the_only_split_is_held_out(self, tmp_path: Path, name: str) -> None:
        folder(tmp_path / name, {"cat": 5, "dog": 10})
        found = create_dataset(str(tmp_path))
        assert found.train is not None and found.test is not None
        assert found.classes == ("cat", "dog") and (len(found.train), len(found.test)) == (12, 3)

    @pytest.mark.parametrize("name", ["Test", "validation_set"])
    def test_a_test_split_alone(self, tmp_path: Path, name: str) -> None:
        folder(tmp_path / name, TWO)
        found = create_dataset(str(tmp_path))
        assert found.train is not None and found.test is not None
        assert found.classes == ("cat", "dog") and (len(found.train), len(found.test)) == (0, 11)

    def test_classes_that_are_called_like_splits(self, tmp_path: Path) -> None:
        """They hold images, or stand beside no other split, so they are classes."""
        folder(tmp_path / "a", {"train": 5, "plane": 5})
        folder(tmp_path / "b", {"test tube/old": 5, "flask/old": 5})
        assert create_dataset(str(tmp_path / "a")).classes == ("plane", "train")
        assert create_dataset(str(tmp_path / "b")).classes == ("flask", "test tube")

    @pytest.mark.parametrize(
        ("made", "said"),
        [
            (["val/cat", "Testing/cat", "val/dog"], "has test images, in Testing and val, and no "
             "training images: rename their folder to train"),
            (["train", "test"], "test and train in .* have the names of splits, and hold no folder "
             "a class"),
            (["train/cat", "train/dog", "test"], "test has the name of a split, as train has, and "
             "holds no folder a class; remove it, or name one split alone with --data"),
            (["train/cat", "Train/cat"], "Train and train in .* all have the name of the training "
             "images"),
            (["set/Train/cat", "set/Test/cat"], "has one class, set, and needs at least 2; if set "
             "holds the classes, name .*/set$"),
        ],
    )  # fmt: skip
    def test_incomplete_splits_are_refused(
        self, tmp_path: Path, made: list[str], said: str
    ) -> None:
        folder(tmp_path, dict.fromkeys(made, 5))
        with pytest.raises(UserError, match=said) as caught:
            create_dataset(str(tmp_path))
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("names", [("fold1", "fold2"), ("photo", "sketch", "painting")])
    def test_splits_of_other_names_are_no_classes(
        self, tmp_path: Path, names: tuple[str, ...]
    ) -> None:
        for name in names:
            folder(tmp_path / name, TWO)
        said = f"each folder, such as {min(names)}, holds the same folders, such as cat, and either"
        with pytest.raises(UserError, match=said):
            create_dataset(str(tmp_path))
        assert create_dataset(str(tmp_path / names[0])).classes == ("cat", "dog")
        folder(tmp_path / "other", TWO)
        save(tmp_path / "other" / "0.png", paint(0))
        assert create_dataset(str(tmp_path)).classes == (*sorted((*names, "other")),)

    def test_other_folders_are_named(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        for name in ("train", "valid", "Test", "extra"):
            folder(tmp_path / name, TWO)
        found = create_dataset(str(tmp_path))
        assert found.test is not None and "/Test/" in str(found.test.read)
        assert caplog.messages == [f"{tmp_path}: left out the folder extra and the folder valid"]


class TestFiles:
    @pytest.mark.parametrize("ending", ["png", "gif", "jfif", "avif", "jp2", "webp", "bmp", "tiff"])
    def test_formats_of_pillow(self, tmp_path: Path, ending: str) -> None:
        if ending in ("avif", "jp2", "webp"):
            feature = {"jp2": "jpg_2000"}.get(ending, ending)
            if not features.check(feature):
                pytest.skip(f"this Pillow is built without {ending}")
        for name, shade in (("a", 0), ("b", 255)):
            for i in range(5):
                place = tmp_path / name / f"{i}.{ending.upper() if i else ending}"
                place.parent.mkdir(exist_ok=True)
                Image.new("RGB", (16, 16), (shade,) * 3).save(place)
        found = create_dataset(str(tmp_path))
        assert found.train is not None and len(found.train) == 8
        images, labels = whole(found.train)
        assert torch.equal(images.float().mean((1, 2, 3)).round(), labels * 255.0)

    def test_files_left_out_are_counted_in_one_line(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        folder(tmp_path, TWO)
        (tmp_path / "labels.csv").write_text("a")
        for name in ("notes.txt", "mask.npy", ".DS_Store", "Thumbs.db"):
            (tmp_path / "dog" / name).write_text("a")
        create_dataset(str(tmp_path))
        assert caplog.messages == [f"{tmp_path}: left out 3 files, such as labels.csv"]

    def test_a_class_without_an_image(self, tmp_path: Path) -> None:
        folder(tmp_path, TWO)
        (tmp_path / "owl").mkdir()
        (tmp_path / "owl" / "1.npy").write_text("a")
        with pytest.raises(UserError, match=r"owl, the folder of a class; it holds 1\.npy$"):
            create_dataset(str(tmp_path))

    @pytest.mark.parametrize("name", [".ipynb_checkpoints", "__MACOSX", "@eaDir"])
    @pytest.mark.parametrize("inner", ["", "train", "cat"])
    def test_hidden_folders_are_no_classes(self, tmp_path: Path, name: str, inner: str) -> None:
        folder(tmp_path / "train", TWO) if inner == "train" else folder(tmp_path, TWO)
        save(tmp_path / inner / name / "0.png")
        save(tmp_path / inner / name / "cat" / "0.png")
        found = create_dataset(str(tmp_path))
        assert found.train is not None and found.test is not None
        assert found.classes == ("cat", "dog") and (len(found.train), len(found.test)) == (8, 3)

    def test_forks_of_files_are_no_images(self, tmp_path: Path) -> None:
        folder(tmp_path, TWO)
        (tmp_path / "cat" / "._0.png").write_bytes(b"no image")
        found = create_dataset(str(tmp_path))
        assert found.train is not None and len(whole(found.train)[0]) == 8

    def test_a_link_to_a_folder_above_is_not_followed(self, tmp_path: Path) -> None:
        folder(tmp_path / "data", TWO)
        (tmp_path / "data" / "cat" / "up").symlink_to(tmp_path / "data")
        (tmp_path / "data" / "top").symlink_to(tmp_path)
        found = create_dataset(str(tmp_path / "data"))
        assert found.train is not None and found.test is not None
        assert found.classes == ("cat", "dog") and len(found.train) + len(found.test) == 11

    def test_links_to_other_folders_are_followed_once(self, tmp_path: Path) -> None:
        folder(tmp_path / "elsewhere", {"owls": 5})
        (tmp_path / "elsewhere" / "owls" / "again").symlink_to(tmp_path / "elsewhere" / "owls")
        folder(tmp_path / "data", TWO)
        (tmp_path / "data" / "owl").symlink_to(tmp_path / "elsewhere" / "owls")
        for name in ("one", "two"):
            (tmp_path / "data" / "dog" / name).symlink_to(tmp_path / "elsewhere")
        found = create_dataset(str(tmp_path / "data"))
        assert found.train is not None and found.test is not None
        labels = found.train.labels.tolist() + found.test.labels.tolist()
        assert found.classes == ("cat", "dog", "owl") and Counter(labels) == {0: 5, 1: 11, 2: 5}

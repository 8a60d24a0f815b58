"""Data by name, and the batches that are scored on."""

from __future__ import annotations

import math
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torchvision import datasets

from diswot import data
from diswot.data import SETS, Split, balanced, whole
from diswot.data.augment import Changes, augment
from diswot.errors import UserError

Pixels = np.ndarray[Any, Any]
quick = settings(derandomize=True, deadline=None, max_examples=50, database=None)


def paint(seed: int, width: int = 8, height: int = 8) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path: Path, pixels: Pixels | None = None, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(paint(len(str(path))) if pixels is None else pixels)
    image.convert(mode).save(path)


def folder(root: Path, counts: dict[str, int], width: int = 8, height: int = 8) -> Path:
    for name, count in counts.items():
        for i in range(count):
            save(root / name / f"{i}.png", paint(i + 100 * len(name), width, height))
    return root


class TestDigits:
    def test_split_is_fixed_and_stratified(self) -> None:
        digits = data.get("digits")
        assert digits.train is not None and digits.test is not None
        assert (len(digits.train), len(digits.test)) == (1437, 360)
        counts = [Counter(split.labels.tolist()) for split in (digits.train, digits.test)]
        for label in range(10):
            share = counts[1][label] / (counts[0][label] + counts[1][label])
            assert share == pytest.approx(0.2, abs=0.005)
        again = data.get("digits")
        assert again.test is not None
        assert torch.equal(again.test.labels, digits.test.labels)

    def test_images_are_grey_bytes_of_scikit_learn(self) -> None:
        from sklearn.datasets import load_digits

        digits = data.get("digits", size=8)
        parts = [whole(split)[0] for split in (digits.train, digits.test) if split]
        images = torch.cat(parts)
        assert images.shape == (1797, 3, 8, 8) and images.dtype == torch.uint8
        assert torch.equal(images[:, 0], images[:, 1]) and torch.equal(images[:, 0], images[:, 2])
        expected = np.rint(load_digits().images * 255 / 16).astype(np.uint8)
        assert sorted(map(bytes, images[:, 0].numpy())) == sorted(map(bytes, expected))

    @pytest.mark.parametrize("size", [None, 8, 20, 32])
    def test_any_size(self, size: int | None) -> None:
        digits = data.get("digits", size=size)
        side = size or 32
        assert digits.size == side and digits.image_shape == (3, side, side)
        assert digits.train is not None
        assert digits.train.read([0, 5]).shape == (2, 3, side, side)
        assert len(digits.classes) == 10

    def test_training_images_are_normal(self) -> None:
        digits = data.get("digits", size=8)
        assert digits.train is not None
        values = digits.normalise(whole(digits.train)[0])
        assert float(values.mean()) == pytest.approx(0, abs=1e-4)
        assert float(values.std()) == pytest.approx(1, abs=1e-4)


class TestNoise:
    def test_is_normal_and_as_asked(self) -> None:
        noise = data.get("noise", classes=7, size=12)
        images, labels = noise.batch(50, seed=3)
        assert images.shape == (50, 3, 12, 12) and noise.image_shape == (3, 12, 12)
        assert set(labels.tolist()) == set(range(7))
        assert abs(float(images.mean())) < 0.05 and abs(float(images.std()) - 1) < 0.05
        assert noise.train is None and noise.test is None

    def test_hundred_classes_of_32_pixels_if_not_asked(self) -> None:
        noise = data.get("noise")
        assert (len(noise.classes), noise.size) == (100, 32)

    @pytest.mark.parametrize("classes", [1, 0, -3])
    def test_too_few_classes(self, classes: int) -> None:
        with pytest.raises(UserError, match=f"at least 2 classes, not {classes}"):
            data.get("noise", classes=classes)


class TestFolder:
    def test_with_train_and_test(self, tmp_path: Path) -> None:
        folder(tmp_path / "train", {"cat": 3, "dog": 4})
        folder(tmp_path / "test", {"cat": 2, "dog": 1})
        found = data.get(str(tmp_path))
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
        found = data.get(str(tmp_path))
        assert found.test is not None and len(found.test) == 2

    @pytest.mark.parametrize("inner", ["", "train"])
    def test_without_test_a_fifth_is_held_out(self, tmp_path: Path, inner: str) -> None:
        folder(tmp_path / inner, {"a": 10, "b": 20, "c": 5})
        found = data.get(str(tmp_path))
        assert found.train is not None and found.test is not None
        assert found.classes == ("a", "b", "c")
        assert Counter(found.test.labels.tolist()) == {0: 2, 1: 4, 2: 1}
        assert Counter(found.train.labels.tolist()) == {0: 8, 1: 16, 2: 4}
        again = data.get(str(tmp_path))
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
        found = data.get(str(tmp_path))
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
        found = data.get(str(tmp_path))
        assert found.train is not None and found.size == 4
        assert torch.equal(found.train.read([0]), torch.full((1, 3, 4, 4), 200, dtype=torch.uint8))
        assert data.get(str(tmp_path), size=6).train.read([0]).shape == (1, 3, 6, 6)  # type: ignore[union-attr]

    def test_size_of_a_large_image_is_limited(self, tmp_path: Path) -> None:
        folder(tmp_path, {"a": 5, "b": 5}, width=500, height=300)
        assert data.get(str(tmp_path)).size == 224

    def test_empty(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=f"no images in {tmp_path}"):
            data.get(str(tmp_path))

    def test_only_other_files(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "notes.txt").write_text("no image")
        with pytest.raises(UserError, match=f"no images in {tmp_path}"):
            data.get(str(tmp_path))

    def test_class_without_images(self, tmp_path: Path) -> None:
        folder(tmp_path, {"a": 5, "c": 5})
        (tmp_path / "b").mkdir()
        with pytest.raises(
            UserError, match=f"no images in {tmp_path / 'b'}, the folder of a class"
        ):
            data.get(str(tmp_path))

    def test_one_class(self, tmp_path: Path) -> None:
        folder(tmp_path, {"a": 5})
        with pytest.raises(UserError, match="has one class, a, and needs at least 2"):
            data.get(str(tmp_path))

    def test_other_classes_in_test(self, tmp_path: Path) -> None:
        folder(tmp_path / "train", {"a": 2, "b": 2})
        folder(tmp_path / "test", {"a": 2, "c": 2})
        with pytest.raises(UserError, match="hold different classes, such as b"):
            data.get(str(tmp_path))

    def test_too_few_to_hold_out(self, tmp_path: Path) -> None:
        folder(tmp_path, {"a": 1, "b": 9})
        with pytest.raises(
            UserError,
            match=r"keep a fifth of each class for testing: \d+ of \d+ classes, \d of the rarest$",
        ):
            data.get(str(tmp_path))

    @pytest.mark.parametrize("damage", ["text", "empty", "cut"])
    def test_unreadable_image(self, tmp_path: Path, damage: str) -> None:
        folder(tmp_path, {"a": 5, "b": 5}, 40, 40)
        for broken in tmp_path.glob("*/3.png"):
            content = broken.read_bytes()
            kinds = {"text": b"no image", "empty": b"", "cut": content[: len(content) // 2]}
            broken.write_bytes(kinds[damage])
        found = data.get(str(tmp_path), size=8)
        assert found.train is not None and found.test is not None
        with pytest.raises(UserError, match=r"3.png cannot be read as an image"):
            for split in (found.train, found.test):
                whole(split)

    def test_sixteen_bits_are_refused_not_clipped(self, tmp_path: Path) -> None:
        folder(tmp_path, {"a": 4, "b": 5})
        Image.fromarray(np.full((8, 8), 40000, dtype=np.uint16)).save(tmp_path / "a" / "9.png")
        found = data.get(str(tmp_path), size=8)
        assert found.train is not None and found.test is not None
        with pytest.raises(UserError, match="more than 8 bits"):
            for split in (found.train, found.test):
                whole(split)


class TestWhole:
    def test_reads_in_parts_and_tells(self) -> None:
        pixels = torch.randint(0, 256, (1234, 3, 2, 2), dtype=torch.uint8)
        asked: list[int] = []

        def read(indices: Any) -> Tensor:
            asked.append(len(indices))
            return pixels[torch.as_tensor(indices)]

        told: list[int] = []
        images, labels = whole(Split(torch.arange(1234), read), on_read=told.append)
        assert torch.equal(images, pixels) and torch.equal(labels, torch.arange(1234))
        assert max(asked) <= 500 and sum(asked) == 1234
        assert told == sorted(told) and told[-1] == 1234

    def test_refuses_floats(self) -> None:
        split = Split(torch.arange(3), lambda indices: torch.rand(len(indices), 3, 2, 2))
        with pytest.raises(UserError, match="must be bytes"):
            whole(split)


class StubCifar:
    """Torchvision's interface, with a few made-up images."""

    def __init__(self, root: str, train: bool, download: bool) -> None:
        print("Files already downloaded and verified")
        self.root, self.classes = root, ["plane", "car", "bird"]
        count = 30 if train else 6
        random = np.random.default_rng(int(train))
        self.data = random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        self.targets = [i % 3 for i in range(count)]


class TestCifar:
    @pytest.mark.parametrize(("name", "kind"), [("cifar10", "CIFAR10"), ("cifar100", "CIFAR100")])
    def test_through_torchvision(
        self,
        name: str,
        kind: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr(datasets, kind, StubCifar)
        found = data.get(name, root=tmp_path)
        assert found.train is not None and found.test is not None
        assert (len(found.train), len(found.test), found.size) == (30, 6, 32)
        assert found.classes == ("plane", "car", "bird") and found.name == name
        stub = StubCifar(str(tmp_path), True, False)
        assert torch.equal(found.train.read([7])[0], as_bytes(stub.data[7]))
        assert found.train.labels.tolist() == stub.targets
        assert capsys.readouterr().out.count("Files") == 1  # the stub's own, made in this test

    @pytest.mark.parametrize("size", [8, 48])
    def test_resized_when_read(
        self, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(datasets, "CIFAR100", StubCifar)
        found = data.get("cifar100", root=tmp_path, size=size)
        assert found.train is not None and found.size == size
        images = found.train.read([1, 2])
        assert images.shape == (2, 3, size, size) and images.dtype == torch.uint8
        before = StubCifar("", True, False).data[[1, 2]].mean()
        assert float(images.float().mean()) == pytest.approx(before, rel=0.02)

    @pytest.mark.parametrize("name", ["cifar10", "cifar100"])
    def test_absent_and_not_to_be_downloaded(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(UserError) as caught:
            data.get(name, root=tmp_path, download=False)
        assert str(caught.value).startswith(f"{name} is not in {tmp_path} and was not to be")
        assert "\n" not in str(caught.value)

    def test_cannot_be_downloaded(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def offline(*args: object, **options: object) -> None:
            raise OSError("no route to host")

        monkeypatch.setattr(datasets, "CIFAR10", offline)
        with pytest.raises(UserError, match="cannot be downloaded: no route to host"):
            data.get("cifar10", root=tmp_path)

    def test_root_is_a_file(self, tmp_path: Path) -> None:
        place = tmp_path / "file"
        place.write_text("")
        with pytest.raises(UserError, match="cifar10 is not in"):
            data.get("cifar10", root=place, download=False)


class TestNames:
    @pytest.mark.parametrize(
        ("name", "hint"), [("digit", "digits"), ("cifar", "cifar10"), ("nois", "noise")]
    )
    def test_nearest(self, name: str, hint: str) -> None:
        with pytest.raises(UserError, match=f"unknown data '{name}'; did you mean .*{hint}"):
            data.get(name)

    def test_nothing_near(self) -> None:
        with pytest.raises(UserError, match=r"known: a .parquet file, a folder of images, .*noise"):
            data.get("zzzzqqqq")

    def test_empty_name_is_not_this_folder(self) -> None:
        with pytest.raises(UserError, match="unknown data ''"):
            data.get("")

    def test_a_file(self, tmp_path: Path) -> None:
        place = tmp_path / "cifar100.zip"
        place.write_bytes(b"PK")
        with pytest.raises(UserError, match=r"cifar100.zip is a file; name a folder"):
            data.get(str(place))

    @pytest.mark.parametrize("size", [0, -4])
    @pytest.mark.parametrize("name", ["noise", "digits", "."])
    def test_impossible_size(self, name: str, size: int) -> None:
        with pytest.raises(UserError, match=f"at least 1 pixel a side, not {size}"):
            data.get(name, size=size)

    def test_every_set_has_a_summary(self) -> None:
        assert all(row.summary for row in SETS.values())


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
        _, labels = data.get("noise", classes=classes, size=1).batch(size, seed)
        counts = torch.bincount(labels, minlength=classes)
        assert int(counts.max() - counts.min()) <= 1 and int(counts.sum()) == size

    @pytest.mark.parametrize("name", ["noise", "digits"])
    def test_same_seed_same_batch_in_any_order(self, name: str) -> None:
        made = data.get(name, size=8)
        first = [made.batch(20, seed=1, repeat=r) for r in (0, 1, 2)]
        again = [data.get(name, size=8).batch(20, seed=1, repeat=r) for r in (2, 1, 0)][::-1]
        for one, other in zip(first, again, strict=True):
            assert torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)

    @pytest.mark.parametrize("name", ["noise", "digits"])
    def test_seeds_and_repeats_differ(self, name: str) -> None:
        made = data.get(name, size=8)
        batches = [made.batch(20, seed, repeat).images for seed in (0, 1) for repeat in (0, 1)]
        for i, one in enumerate(batches):
            assert not any(torch.equal(one, other) for other in batches[:i])

    def test_the_global_random_states_are_not_touched(self) -> None:
        state, numpys = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[union-attr]
        data.get("noise").batch(4)
        data.get("digits", size=8).batch(4)
        assert torch.equal(torch.get_rng_state(), state)
        assert np.array_equal(np.random.get_state()[1], numpys)

    def test_images_are_laid_out_for_speed_and_normalised(self) -> None:
        digits = data.get("digits", size=8)
        images, labels = digits.batch(1000)
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert images.dtype == torch.float32 and labels.dtype == torch.int64
        assert math.isclose(float(images.std()), 1, abs_tol=0.02)

    def test_images_belong_to_their_labels(self) -> None:
        digits = data.get("digits", size=8)
        assert digits.train is not None
        pixels, labels = whole(digits.train)
        of = {
            bytes(image[0].numpy()): int(label) for image, label in zip(pixels, labels, strict=True)
        }
        images, told = digits.batch(50, seed=2)
        back = (images * digits.std[0] + digits.mean[0]).mul(255).round().to(torch.uint8)
        assert [of[bytes(image[0].numpy())] for image in back.contiguous()] == told.tolist()

    def test_larger_than_the_set(self) -> None:
        with pytest.raises(UserError, match="digits has 1437 training images, not 1438"):
            data.get("digits", size=8).batch(1438)
        assert len(data.get("digits", size=8).batch(1437).labels) == 1437

    @pytest.mark.parametrize("size", [1, 0, -1])
    @pytest.mark.parametrize("name", ["noise", "digits"])
    def test_too_small(self, name: str, size: int) -> None:
        with pytest.raises(UserError, match=f"at least 2 images, not {size}"):
            data.get(name, size=8).batch(size)


class TestAugment:
    @pytest.mark.parametrize("crop", [0, 1, 4])
    @pytest.mark.parametrize("flip", [False, True])
    @pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
    def test_naive(self, crop: int, flip: bool, dtype: torch.dtype) -> None:
        images = torch.randint(1, 256, (40, 3, 6, 6)).to(dtype)
        kept = images.clone()
        made = augment(images, Changes(crop, flip=flip), torch.Generator().manual_seed(5))
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
        made = augment(image.expand(2000, -1, -1, -1), Changes(2), torch.Generator().manual_seed(0))
        places = Counter(map(tuple, made.nonzero()[:, 2:].tolist()))
        assert len(places) == 25 and min(places.values()) > 40
        image[0, 0, 2] = torch.arange(5)
        mirror = Changes(flip=True)
        made = augment(image.expand(2000, -1, -1, -1), mirror, torch.Generator().manual_seed(0))
        assert 900 < int((made[:, 0, 2, 0] == 4).sum()) < 1100


def as_bytes(pixels: Pixels) -> Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


ZIP = Path(__file__).parents[2] / "shared" / "data" / "cifar100.zip"


@pytest.mark.slow
@pytest.mark.skipif(not ZIP.is_file(), reason=f"no real CIFAR-100 in {ZIP}")
def test_real_cifar100(tmp_path: Path) -> None:
    with zipfile.ZipFile(ZIP) as archive:
        archive.extractall(tmp_path)
    found = data.get(str(tmp_path / "cifar100"))
    assert found.train is not None and found.test is not None
    assert (len(found.train), len(found.test)) == (50_000, 10_000)
    assert len(found.classes) == 100 and found.size == 32
    assert set(Counter(found.train.labels.tolist()).values()) == {500}
    images, labels = found.batch(64)
    assert images.shape == (64, 3, 32, 32) and len(set(labels.tolist())) == 64
    pixels, _ = whole(found.test)
    means = pixels.float().mean((0, 2, 3)) / 255
    assert means.tolist() == pytest.approx([0.5071, 0.4865, 0.4409], abs=0.01)


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
        found = data.get(str(tmp_path))
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
        found = data.get(str(tmp_path))
        assert len(opened) == 1  # for the size
        found.batch(6)
        assert len(opened) == 7

"""A folder of images without labels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from data.drawn_boxes import voc_folder, xml
from data.pictures import as_bytes, folder, paint, save

from diswot.data.dataset import UNLABELLED, whole
from diswot.data.registry import create_dataset
from diswot.data.unlabelled import unlabelled_alone, with_unlabelled
from diswot.errors import UserError


def pool(root: Path) -> Path:
    """Three images at several depths, and a file that is none."""
    for number, name in enumerate(("b.png", "a/c.png", "a/d/e.PNG")):
        save(root / name, paint(7 + number, 12, 8))
    (root / "notes.txt").write_text("no image")
    return root


def test_beside_labelled_images(tmp_path: Path) -> None:
    data = create_dataset(str(folder(tmp_path / "data", {"cat": 5, "dog": 10})))
    both = with_unlabelled(data, pool(tmp_path / "pool"))
    assert data.train is not None and both.train is not None
    assert both.train.labels.tolist() == [*data.train.labels.tolist(), *[UNLABELLED] * 3]
    assert both.has_unlabelled and not data.has_unlabelled and both.test is data.test
    images, _ = whole(both.train)
    assert images.shape == (15, 3, 8, 8) and torch.equal(images[:12], whole(data.train)[0])
    # In the order of their paths, the centre of each.
    for place, seed in ((12, 8), (13, 9), (14, 7)):
        assert torch.equal(images[place], as_bytes(paint(seed, 12, 8))[:, :, 2:10])
    mixed = both.train.read([14, 0, 12])
    assert torch.equal(mixed, images[[14, 0, 12]])


def test_hidden_files_and_links_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = pool(tmp_path / "pool")
    save(root / "f.gif", paint(3))
    save(root / ".ipynb_checkpoints" / "b.png", paint(3))
    save(root / "__MACOSX" / "b.png", paint(3))
    (root / "a" / "up").symlink_to(root)
    both = with_unlabelled(create_dataset("digits", img_size=8), root)
    assert both.train is not None and both.train.labels.tolist().count(UNLABELLED) == 4
    assert caplog.messages == [f"{root}: left out 1 file, such as notes.txt"]


def test_alone_beside_test_images(tmp_path: Path) -> None:
    folder(tmp_path / "data" / "test", {"cat": 3, "dog": 2})
    data = create_dataset(str(tmp_path / "data"))
    assert data.classes == ("cat", "dog") and data.size == 8
    assert data.train is not None and data.test is not None
    assert len(data.train) == 0 and len(data.test) == 5
    alone = with_unlabelled(data, pool(tmp_path / "pool"))
    assert alone.train is not None and alone.train.labels.tolist() == [UNLABELLED] * 3
    assert whole(alone.train)[0].shape == (3, 3, 8, 8)


def test_a_class_may_have_the_name_of_a_test_folder(tmp_path: Path) -> None:
    data = create_dataset(str(folder(tmp_path, {"test": 5, "other": 5})))
    assert data.classes == ("other", "test") and data.train is not None and len(data.train) == 8


@pytest.mark.parametrize("exists", [True, False])
def test_no_images(tmp_path: Path, exists: bool) -> None:
    data = create_dataset("digits")
    if exists:
        (tmp_path / "pool").mkdir()
    with pytest.raises(
        UserError, match=r"no images in .*pool, the folder of images without labels"
    ):
        with_unlabelled(data, tmp_path / "pool")


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    (pool(tmp_path) / "b.png").write_text("no image")
    both = with_unlabelled(create_dataset("digits"), tmp_path)
    assert both.train is not None
    with pytest.raises(UserError, match=r"b.png cannot be read as an image"):
        both.train.read([len(both.train) - 1])


def test_no_labels_at_all(tmp_path: Path) -> None:
    for number in range(10):
        save(tmp_path / f"{number}.png", paint(number, 8, 8))
    data = unlabelled_alone(tmp_path, ["cat", "dog"])
    assert data.classes == ("cat", "dog") and data.size == 8
    assert data.has_unlabelled and data.tests_agreement and not data.has_labels
    assert data.train is not None and data.test is not None
    read = [whole(split)[0] for split in (data.train, data.test)]
    assert [len(each) for each in read] == [8, 2]
    painted = sorted(as_bytes(paint(number, 8, 8)).flatten().tolist() for number in range(10))
    assert sorted(image.flatten().tolist() for image in torch.cat(read)) == painted
    again = unlabelled_alone(tmp_path, ["cat", "dog"], img_size=4).test
    assert again is not None and whole(again)[0].shape == (2, 3, 4, 4)


def test_too_few_images_alone(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has 3 images, and a training needs at least 5"):
        unlabelled_alone(pool(tmp_path), ["cat", "dog"])


def test_images_without_labels_beside_boxes_are_refused(tmp_path: Path) -> None:
    notes = {stem: xml(("ant", 1, 1, 9, 9)) for stem in "ab"}
    data = create_dataset(str(voc_folder(tmp_path / "data", notes, train="a", test="b")))
    with pytest.raises(UserError, match="is data for detection, which has no unlabelled images"):
        with_unlabelled(data, pool(tmp_path / "pool"))

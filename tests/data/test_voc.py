"""Pascal VOC as data for detection."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest
from data.drawn_boxes import SIZE, loaded, picture, rows, voc_folder, xml
from PIL import Image

from diswot.data.registry import create_dataset
from diswot.errors import UserError

BCCD = Path(__file__).parents[3] / "shared" / "data" / "bccd.zip"

WHOLE = ("cat", 1, 1, *SIZE)  # of an image, in coordinates from 1
ONE = {"a": xml(WHOLE), "b": xml(WHOLE), "c": xml(WHOLE), "d": xml(WHOLE), "e": xml(WHOLE)}


def test_coordinates_from_1_and_flags(tmp_path: Path) -> None:
    notes = {
        "a b": xml(WHOLE, ("ant", 11, 6, 20, 15, "difficult")),
        "b": xml(size=None),
        "c": xml(("bee", "3.5", 2, 9, 9), size=(0, 0)),
    }
    root = voc_folder(tmp_path, notes, test="c", val="b")
    (root / "ImageSets/Main/train.txt").write_text("a b\nb\n\n")
    data, train, test = loaded(root)
    assert data.classes == ("ant", "bee", "cat") and data.image_shape == (3, 30, 40)
    assert rows(train) == [[[0, 0, 40, 30, 2, 0], [10, 5, 20, 15, 0, 1]], []]
    assert rows(test) == [[[2.5, 1, 9, 9, 1, 0]]]
    assert train.labels.tolist() == [2, 3] and train.read([0, 1]).shape == (2, 3, 30, 40)


@pytest.mark.parametrize(
    ("lists", "counts"),
    [
        ({"train": "a b c", "val": "d", "test": "e"}, (3, 1)),
        ({"train": "a b c", "val": "d e"}, (3, 2)),
        ({"trainval": "a b c", "val": "c", "test": "d e"}, (3, 2)),
        ({"trainval": "a b c d e", "val": "c d"}, (4, 1)),
        ({"train": "a b c d e"}, (4, 1)),
    ],
)
def test_splits(
    tmp_path: Path,
    lists: dict[str, str],
    counts: tuple[int, int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    _, train, test = loaded(voc_folder(tmp_path, ONE, **lists))
    assert (len(train), len(test)) == counts
    left_out = "left out the split val, as there is a split test" in caplog.text
    assert left_out == (lists.keys() == {"train", "val", "test"})


def test_listed_classes(tmp_path: Path) -> None:
    root = voc_folder(tmp_path, ONE, train="a b c", val="d e")
    (root / "classes.txt").write_text("dog\n\ncat\n")
    data, train, _ = loaded(root)
    assert data.classes == ("dog", "cat") and rows(train)[0][0][4] == 1
    (root / "classes.txt").write_text("dog\n")
    with pytest.raises(UserError, match=r"a\.jpg: cat is none of the classes in classes\.txt"):
        loaded(root)


def test_listed_images_that_are_not_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = voc_folder(tmp_path, ONE, train="a b c x", val="d e")
    picture(root / "JPEGImages" / "x.jpg")
    _, train, _ = loaded(root)
    assert len(train) == 3 and "left out 1 without an image or an annotation, such as x" in (
        caplog.text
    )
    (root / "ImageSets/Main/train.txt").write_text("x\n")
    with pytest.raises(UserError, match=r"train\.txt has no image with an annotation"):
        loaded(root)


@pytest.mark.parametrize(
    ("note", "message"),
    [
        ("<annotation>", "cannot be read as XML"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><annotation/>", "has a document type"),
        (xml(("", 1, 2, 3, 4)), "has an object without a name"),
        (xml(("cat", 1, 2, "x", 4)), "bndbox/xmax is 'x', not a number"),
        (xml(("cat", 1, 2, "nan", 4)), "has a box whose coordinates are no numbers"),
        (xml(WHOLE).replace("bndbox", "box"), "bndbox/xmin is '', not a number"),
        (xml(WHOLE, size=SIZE[::-1]), "is for an image of 30 x 40 pixels, and .*a.jpg has 40 x 30"),
    ],
)
def test_a_wrong_annotation_is_refused(tmp_path: Path, note: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        loaded(voc_folder(tmp_path, {**ONE, "a": note}, train="a b c", val="d e"))


def test_a_folder_that_has_masks_too(tmp_path: Path) -> None:
    """As Pascal VOC itself, whose masks come first."""
    root = voc_folder(tmp_path, ONE, train="a b c", val="d e")
    (root / "ImageSets" / "Segmentation").mkdir()
    (root / "SegmentationClass").mkdir()
    for split, stems in (("train", "ab"), ("val", "c")):
        listed = "\n".join(stems)
        (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(listed)
        for stem in stems:
            mask = Image.new("L", SIZE)
            mask.putpixel((0, 0), 1)
            mask.save(root / "SegmentationClass" / f"{stem}.png")
    assert create_dataset(str(root)).task == "segmentation"
    _, train, _ = loaded(root, task="detection")
    assert len(train) == 3


def test_equal_names_in_several_folders_are_refused(tmp_path: Path) -> None:
    root = voc_folder(tmp_path, ONE, train="a b c", val="d e")
    picture(root / "JPEGImages" / "more" / "a.jpg")
    with pytest.raises(UserError, match=r"a\.jpg and .*more.*a\.jpg have the same name"):
        loaded(root)


def test_folders_of_splits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As Roboflow exports: images and annotations side by side."""
    for split, stems in (("train", "abc"), ("valid", "d"), ("test", "ef")):
        for stem in stems:
            picture(tmp_path / split / f"{stem}.jpg").with_suffix(".xml").write_text(xml(WHOLE))
    _, train, test = loaded(tmp_path)
    assert (len(train), len(test)) == (3, 2)
    assert "left out the split val, as there is a split test" in caplog.text


def test_one_folder_of_annotations(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "annotations").mkdir()
    for number in range(11):
        picture(tmp_path / "images" / f"{number}.png")
        (tmp_path / "annotations" / f"{number}.xml").write_text(xml(WHOLE))
    (tmp_path / "annotations" / "10.xml").unlink()
    _, train, test = loaded(tmp_path)
    assert (len(train), len(test)) == (8, 2)
    assert "left out 1 without an image or an annotation, such as 10" in caplog.text


def test_other_xml_is_no_annotation(tmp_path: Path) -> None:
    for name in ("ant", "bee"):
        for number in range(5):
            picture(tmp_path / name / f"{number}.jpg")
    (tmp_path / "about.xml").write_text("<about/>")
    assert create_dataset(str(tmp_path)).task == "classification"


@pytest.mark.slow
@pytest.mark.skipif(not BCCD.exists(), reason="the images are in ../shared/data")
def test_blood_cells(tmp_path: Path) -> None:
    """Each box of the files, found by a pattern, is a box of the data set, once."""
    with zipfile.ZipFile(BCCD) as archive:
        archive.extractall(tmp_path)
    root = tmp_path / "bccd"
    data, train, test = loaded(root)
    assert data.classes == ("Platelets", "RBC", "WBC") and data.image_shape == (3, 240, 320)
    for name, split, count in (("train", train, 205), ("test", test, 72)):
        stems = (root / "ImageSets" / "Main" / f"{name}.txt").read_text().split()
        assert len(stems) == len(split) == count
        for stem, boxes in zip(stems, rows(split), strict=True):
            text = (root / "Annotations" / f"{stem}.xml").read_text()
            names = re.findall(r"<name>(\w+)</name>", text)
            numbers = map(int, re.findall(r"<[xy]m\w+>(\d+)<", text))
            corners = zip(*[numbers] * 4, strict=True)
            expected = {
                (max(a - 1, 0), max(b - 1, 0), c, d, data.classes.index(label), 0)
                for label, (a, b, c, d) in zip(names, corners, strict=True)
                if c >= a and d >= b
            }
            assert {tuple(box) for box in boxes} == expected and len(boxes) == len(expected)

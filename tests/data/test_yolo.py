"""The text files of YOLO as data for detection."""

from __future__ import annotations

from pathlib import Path

import pytest
from data.drawn_boxes import loaded, picture, rows

from diswot.data.registry import create_dataset
from diswot.errors import UserError

NAMES = "names: [ant, bee]\n"
BOX = "1 0.5 0.5 0.25 0.2\n"  # of 40 x 30 pixels
ROW = [15, 12, 25, 18, 1, 0]


def images(root: Path, split: str, *labels: str | None, order: str = "{kind}/{split}") -> None:
    """Write images and label files; an image whose label is None has no file."""
    for number, label in enumerate(labels):
        places = [root / order.format(kind=kind, split=split) for kind in ("images", "labels")]
        picture(places[0] / f"{split}{number}.jpg")
        places[1].mkdir(parents=True, exist_ok=True)
        if label is not None:
            (places[1] / f"{split}{number}.txt").write_text(label)


def usual(root: Path, label: str = BOX, listing: str = "") -> Path:
    images(root, "train", label, None, "")
    images(root, "val", BOX)
    (root / "data.yaml").write_text(
        listing or f"path: ../datasets/insects\ntrain: images/train\nval: images/val\n{NAMES}"
    )
    return root


@pytest.mark.parametrize("name", ["", "data.yaml"])
def test_a_folder_or_its_yaml(tmp_path: Path, name: str) -> None:
    data, train, test = loaded(usual(tmp_path) / name)
    assert data.classes == ("ant", "bee") and data.image_shape == (3, 30, 40)
    assert rows(train) == [[pytest.approx(ROW)], [], []]
    assert rows(test) == [[pytest.approx(ROW)]]
    assert train.read([0, 1]).shape == (2, 3, 30, 40)


def test_as_roboflow_exports(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for split in ("train", "valid", "test"):
        images(tmp_path, split, BOX, BOX, order="{split}/{kind}")
    (tmp_path / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 2\n"
        "names: {0: ant, 1: bee}\nroboflow:\n  license: MIT\n"
    )
    _, train, test = loaded(tmp_path)
    assert test.read([0]).shape == (1, 3, 30, 40) and (len(train), len(test)) == (2, 2)
    assert "left out the split val, as there is a split test" in caplog.text


def test_lists_of_images_and_several_folders(tmp_path: Path) -> None:
    root = usual(tmp_path, listing=f"train: [images/train, more.txt]\nval: val.txt\n{NAMES}")
    picture(root / "extra" / "x.png")
    (root / "extra" / "x.txt").write_text(BOX * 2)
    (root / "more.txt").write_text("./extra/x.png\n")
    (root / "val.txt").write_text("images/val/val0.jpg\n\n")
    _, train, test = loaded(root)
    assert list(map(len, rows(train))) == [1, 0, 0, 1] and len(test) == 1


def test_an_outline_becomes_a_box(tmp_path: Path) -> None:
    _, train, _ = loaded(usual(tmp_path, "0 0.5 0.1 0.75 0.5 0.25 0.4"))
    assert rows(train)[0] == [pytest.approx([10, 3, 30, 15, 0, 0])]


def test_keypoints_are_left_out(tmp_path: Path) -> None:
    listing = f"train: images/train\nval: images/val\nkpt_shape: [2, 3]\n{NAMES}"
    root = usual(tmp_path, f"{BOX.strip()} 0.1 0.1 2 0.9 0.9 0\n", listing)
    _, train, _ = loaded(root)
    assert rows(train)[0] == [pytest.approx(ROW)]


@pytest.mark.parametrize("name", [".", "data.yaml"])
def test_from_within_the_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = f"train: images/train\nval: images/val\n{NAMES}"
    monkeypatch.chdir(usual(tmp_path, "\ufeff" + BOX, listing))
    _, train, _ = loaded(Path(name))
    assert rows(train)[0] == [pytest.approx(ROW)]


def test_folders_without_a_yaml(tmp_path: Path) -> None:
    usual(tmp_path)
    (tmp_path / "data.yaml").rename(tmp_path / "classes.txt")
    (tmp_path / "classes.txt").write_text("ant\nbee\n")
    data, train, test = loaded(tmp_path)
    assert data.classes == ("ant", "bee") and (len(train), len(test)) == (3, 1)


def test_a_folder_of_all_images_without_a_yaml(tmp_path: Path) -> None:
    images(tmp_path, "a", *[BOX] * 10, order="{kind}")
    (tmp_path / "classes.txt").write_text("ant\nbee\n")
    _, train, test = loaded(tmp_path)
    assert (len(train), len(test)) == (8, 2)


def test_a_split_that_is_not_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = usual(tmp_path, listing=f"train: images/train\nval: images/val\ntest: x\n{NAMES}")
    _, _, test = loaded(root)
    assert len(test) == 1 and "left out the split test, as x is not there" in caplog.text


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("2 0.5 0.5 0.2 0.2", "line 1 has the class 2, and data.yaml names 0 to 1"),
        (BOX + "0.5 0.5 0.5 0.2 0.2", "line 2 has the class 0.5"),
        ("-1 0.5 0.5 0.2 0.2", "line 1 has the class -1"),
        ("nan 0.5 0.5 0.2 0.2", "line 1 has the class nan"),
        ("1 20 15 10 10", "line 1 is no share of the image's width and height"),
        ("1 0.5 nan 0.2 0.2", "line 1 is no share"),
        ("1 0.5 0.5 0.2", "line 1 has 4 numbers, and a box has 5"),
        ("1 0.5 0.5 0.2 0.2 0.9", "line 1 has 6 numbers, and a box has 5"),
        ("ant 0.5 0.5 0.2 0.2", "line 1 has something other than numbers"),
    ],
)
def test_a_wrong_label_is_refused(tmp_path: Path, label: str, message: str) -> None:
    with pytest.raises(UserError, match=f"train0.txt: {message}"):
        loaded(usual(tmp_path, label))


@pytest.mark.parametrize(
    ("listing", "message"),
    [
        (f"train: x\nval: images/val\n{NAMES}", "no such folder or file for train: .*x"),
        (f"train: {'x' * 400}\n{NAMES}", "no such folder or file for train"),
        (f"train: labels/train\n{NAMES}", "no images for train in labels/train"),
        (f"train: 3\n{NAMES}", "train must be a path, or a list of paths"),
        (f"train: more.txt\n{NAMES}", "more.txt lists y.jpg, which is not there"),
        ("train: images/train\nnames: {1: ant, 2: bee}", "numbered from 0"),
        ("train: images/train\nnames: [ant, ant]", "must list different classes"),
        ("train: images/train\nnames: ant", "must list different classes"),
        (f"train:\nval: images/val\n{NAMES}", "has images with boxes for val, none for train"),
    ],
)
def test_a_wrong_yaml_is_refused(tmp_path: Path, listing: str, message: str) -> None:
    (tmp_path / "more.txt").write_text("y.jpg\n")
    with pytest.raises(UserError, match=message):
        loaded(usual(tmp_path, listing=listing))


@pytest.mark.parametrize("text", ["names: [", "!!python/object/apply:os.system ['true']"])
def test_yaml_that_cannot_be_read_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(UserError, match=r"data\.yaml cannot be read as YAML"):
        create_dataset(str(tmp_path / "data.yaml"))


def test_other_yaml_is_no_listing(tmp_path: Path) -> None:
    for name in ("ant", "bee"):
        for number in range(5):
            picture(tmp_path / name / f"{number}.jpg")
    (tmp_path / "about.yaml").write_text("names: [ant, bee]")
    assert create_dataset(str(tmp_path)).task == "classification"
    with pytest.raises(UserError, match=r"about\.yaml is a file; name a folder of images"):
        create_dataset(str(tmp_path / "about.yaml"))

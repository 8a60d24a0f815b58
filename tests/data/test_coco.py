"""The JSON of COCO as data for detection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from data.drawn_boxes import CATEGORIES, coco_facts, loaded, picture, rows, write_json

from diswot.data.registry import create_dataset
from diswot.errors import UserError

BOX: dict[str, Any] = {"category_id": 3, "bbox": [10, 5, 20, 10.5]}
TRAIN = {"a.jpg": [BOX, {"category_id": 7, "bbox": [0, 0, 4, 4], "iscrowd": 1}], "b.jpg": []}
TEST = {"c.jpg": [BOX]}


def pictures(folder: Path, *names: str) -> None:
    for name in names:
        picture(folder / name)


def folders(root: Path, train: object, test: object) -> Path:
    """A folder as COCO publishes it, with the JSON of both splits."""
    pictures(root / "train2017", "a.jpg", "b.jpg")
    pictures(root / "val2017", "c.jpg")
    write_json(root / "annotations" / "instances_train2017.json", train)
    write_json(root / "annotations" / "instances_val2017.json", test)
    return root


def is_read(root: Path) -> None:
    data, train, test = loaded(root)
    assert data.classes == ("cat", "ant") and data.image_shape == (3, 30, 40)
    assert rows(train) == [[[10, 5, 30, 15.5, 1, 0], [0, 0, 4, 4, 0, 1]], []]
    assert rows(test) == [[[10, 5, 30, 15.5, 1, 0]]]
    assert train.read([0, 1]).shape == (2, 3, 30, 40)


def test_as_published(tmp_path: Path) -> None:
    root = folders(tmp_path, coco_facts(TRAIN), coco_facts(TEST))
    for name in ("captions_train2017", "person_keypoints_train2017", "image_info_test2017"):
        write_json(root / "annotations" / f"{name}.json", coco_facts(TEST))
    is_read(root)


def test_images_in_a_folder_of_images(tmp_path: Path) -> None:
    pictures(tmp_path / "images", "a.jpg", "b.jpg", "c.jpg")
    write_json(tmp_path / "annotations" / "train.json", coco_facts(TRAIN))
    write_json(tmp_path / "annotations" / "val.json", coco_facts(TEST))
    is_read(tmp_path)


def test_names_with_folders(tmp_path: Path) -> None:
    pictures(tmp_path / "images" / "train", "a.jpg", "b.jpg")
    pictures(tmp_path / "images" / "val", "c.jpg")
    named = {f"train/{name}": notes for name, notes in TRAIN.items()}
    write_json(tmp_path / "train_annotations.json", coco_facts(named))
    write_json(tmp_path / "val_annotations.json", coco_facts({"val/c.jpg": [BOX]}))
    is_read(tmp_path)


def test_a_file_in_the_folder_of_each_split(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As Roboflow exports, whose first category is the group of the others."""
    group = {"id": 0, "name": "animals", "supercategory": "none"}
    categories = [group, *({**each, "supercategory": "animals"} for each in CATEGORIES)]
    for split, facts in (("train", TRAIN), ("valid", {}), ("test", TEST)):
        pictures(tmp_path / split, *facts)
        write_json(tmp_path / split / "_annotations.coco.json", coco_facts(facts, categories))
    is_read(tmp_path)
    assert "left out the split val, as there is a split test" in caplog.text


def test_the_group_of_others_is_a_class_if_it_has_a_box(tmp_path: Path) -> None:
    group = {"id": 9, "name": "pet", "supercategory": "pet"}
    categories = ({**CATEGORIES[0], "supercategory": "pet"}, CATEGORIES[1], group)
    facts = coco_facts({**TRAIN, "b.jpg": [{**BOX, "category_id": 9}]}, categories)
    data, *_ = loaded(folders(tmp_path, facts, coco_facts(TEST)))
    assert data.classes == ("cat", "ant", "pet")


def test_one_file_for_all_images(tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(10)]
    pictures(tmp_path / "images", *names)
    facts = coco_facts({name: [BOX] for name in names})
    write_json(tmp_path / "annotations" / "instances_default.json", facts)
    _, train, test = loaded(tmp_path)
    assert (len(train), len(test)) == (8, 2)


def test_numbers_of_categories_are_those_of_each_file(tmp_path: Path) -> None:
    others = ({"id": 3, "name": "cat"}, {"id": 7, "name": "ant"})
    _, train, test = loaded(folders(tmp_path, coco_facts(TRAIN), coco_facts(TEST, others)))
    assert rows(train)[0][0][4] == 1 and rows(test)[0][0][4] == 0


@pytest.mark.parametrize("width", [0, 10**9])
def test_sizes_that_are_not_stated_are_those_of_the_images(tmp_path: Path, width: int) -> None:
    root = folders(tmp_path, coco_facts(TRAIN, width=width, height=0), coco_facts(TEST))
    picture(root / "train2017" / "a.jpg", (80, 30))
    data, train, _ = loaded(root)
    assert data.image_shape == (3, 30, 80) and train.read([0, 1]).shape == (2, 3, 30, 80)


def test_images_that_are_not_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    facts = coco_facts({**TRAIN, "x.jpg": [BOX], "y.jpg": []})
    _, train, _ = loaded(folders(tmp_path, facts, coco_facts(TEST)))
    assert len(train) == 2
    assert "left out 2 of 4 images that are not there, such as" in caplog.text


@pytest.mark.parametrize(
    ("note", "message"),
    [
        ({"category_id": 8}, "the box 0 has no known category, but 8"),
        ({"category_id": None}, "the box 0 has no known category, but None"),
        ({"category_id": []}, "the box 0 has no known category"),
        ({"bbox": [1, 2, 3]}, "the box 0 has no bbox of four numbers"),
        ({"bbox": [1, 2, 3, "4"]}, "the box 0 has no bbox of four numbers"),
        ({"bbox": [1, 2, 3, 10**400]}, "the box 0 has no bbox of four numbers"),
        ({"bbox": None}, "the box 0 has no bbox of four numbers"),
        ({"image_id": 5}, "the box 0 is of no image of the list, but of 5"),
        ({"image_id": {}}, "the box 0 is of no image of the list"),
    ],
)
def test_a_wrong_box_is_refused(tmp_path: Path, note: dict[str, Any], message: str) -> None:
    facts = coco_facts({"a.jpg": [{**BOX, **note}]})
    with pytest.raises(UserError, match=message):
        loaded(folders(tmp_path, facts, coco_facts(TEST)))


def test_a_class_of_the_test_images_alone_is_refused(tmp_path: Path) -> None:
    facts = coco_facts(TEST, [{"id": 3, "name": "dog"}])
    with pytest.raises(UserError, match="the box 0 is dog, which is none of the classes"):
        loaded(folders(tmp_path, coco_facts(TRAIN), facts))


GOOD = coco_facts(TRAIN)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({**GOOD, "images": {}}, "has no list of images, as the JSON of COCO has"),
        ({**GOOD, "annotations": [1]}, "has no list of annotations"),
        ({**GOOD, "categories": None}, "has no list of categories"),
        ({**GOOD, "categories": [CATEGORIES[0]] * 2}, "categories need an id of their own"),
        ({**GOOD, "categories": [{"id": 1}]}, "categories need an id of their own and a name"),
        (coco_facts(TRAIN, [*CATEGORIES, {"id": 9, "name": "ant"}]), "two categories of one name"),
        ({**GOOD, "images": [{"id": 1, "file_name": "../a.jpg"}]}, "is outside the folder"),
        ({**GOOD, "images": [{"id": 1, "file_name": "/etc/a.jpg"}]}, "is outside the folder"),
        ({**GOOD, "images": [{"id": [], "file_name": "a.jpg"}]}, "images need an id of their own"),
        ({**GOOD, "images": [{"id": 1, "file_name": "x.jpg"}]}, "in none of the usual folders"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, facts: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        loaded(folders(tmp_path, facts, coco_facts(TEST)))


@pytest.mark.parametrize("text", ['{"images": [', '{"images": ' + "[" * 100_000])
def test_damaged_json_is_refused(tmp_path: Path, text: str) -> None:
    root = folders(tmp_path, GOOD, coco_facts(TEST))
    (root / "annotations" / "instances_train2017.json").write_text(text)
    with pytest.raises(UserError, match=r"instances_train2017\.json cannot be read as JSON"):
        loaded(root)


def test_only_test_images_are_refused(tmp_path: Path) -> None:
    pictures(tmp_path / "images", "c.jpg")
    write_json(tmp_path / "annotations" / "val.json", coco_facts(TEST))
    with pytest.raises(UserError, match="has images with boxes for val, none for train"):
        loaded(tmp_path)


def test_other_json_is_no_coco(tmp_path: Path) -> None:
    for name in ("ant", "bee"):
        pictures(tmp_path / name, *(f"{number}.jpg" for number in range(5)))
    write_json(tmp_path / "about.json", {"name": "insects"})
    assert create_dataset(str(tmp_path)).task == "classification"

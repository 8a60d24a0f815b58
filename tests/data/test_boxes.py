"""The rules of data with boxes, of any format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from data.drawn_boxes import loaded, rows, voc_folder, xml
from PIL import Image

from diswot.data.boxes import BoxedImages, array, boxed, image_files
from diswot.data.dataset import Dataset, whole
from diswot.errors import UserError

CLASSES = ("ant", "bee", "cat")


def made(*boxes: list[tuple[float, ...]], sizes: tuple[tuple[int, int], ...] = ()) -> Dataset:
    """Grey images with boxes, 40 x 30 pixels unless sizes are given; the test image has none."""
    sizes = sizes or ((40, 30),) * len(boxes)

    def images(sizes: tuple[tuple[int, int], ...], boxes: list[np.ndarray]) -> BoxedImages:
        names = [str(number) for number in range(len(sizes))]
        return BoxedImages(names, sizes, boxes, lambda i: Image.new("RGB", sizes[i], "white"))

    test = images(((40, 30),), [array([])])
    train = images(sizes, [array(each) for each in boxes])
    return boxed("some", CLASSES, [train] if test is None else [train, test], None)


def test_rules_are_applied_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    data = made(
        [
            (-5, 10, 20, 20, 0, 0),  # clipped
            (-0.5, 0, 10, 10.5, 1, 0),  # within rounding
            (30, 20, 60, 50, 2, 1),  # clipped, and a crowd
            (5, 5, 5, 9, 0, 0),  # no width
            (9, 9, 5, 12, 0, 0),  # turned
            (50, 5, 60, 9, 0, 0),  # outside
            (-0.4, 0, 10, 10.5, 1, 0),  # the second one again, once clipped
            (-0.4, 0, 10, 10.5, 2, 0),  # of another class
        ],
        [(1, 1, 1, 1, 1, 1)],
    )
    assert data.train is not None
    assert rows(data.train) == [
        [
            [0, 10, 20, 20, 0, 0],
            [0, 0, 10, 10.5, 1, 0],
            [30, 20, 40, 30, 2, 1],
            [0, 0, 10, 10.5, 2, 0],
        ],
        [],
    ]
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == (
        "some: kept 2 images without boxes; clipped 2 boxes to the image; dropped 4 boxes of no "
        "size; dropped 1 box for being there twice; 1 box of crowds or difficult objects"
    )


def test_nothing_to_count_is_not_said(caplog: pytest.LogCaptureFixture) -> None:
    one = image_files(["a", "b"], [(40, 30)] * 2, [array([(0, 0, 9, 9, 0, 0)])] * 2)
    boxed("some", CLASSES, [one, one], None)
    assert not caplog.records


def test_images_keep_their_aspect_ratio(tmp_path: Path) -> None:
    """A white rectangle lies where its box says, in an image of each shape."""
    notes, sizes = {}, {"a": (80, 60), "b": (60, 80), "c": (160, 40), "d": (20, 15)}
    for stem, (width, height) in sizes.items():
        notes[stem] = xml(("ant", 1, 1, width // 2, height), size=(width, height))
    root = voc_folder(tmp_path, notes, train="a b c d", test="a")
    for stem, (width, height) in sizes.items():
        image = Image.new("RGB", (width, height))
        image.paste((255, 255, 255), (0, 0, width // 2, height))
        image.save(root / "JPEGImages" / f"{stem}.jpg", quality=100)
    data, train, _ = loaded(root, img_size=30)
    assert data.image_shape == (3, 30, 40)
    assert rows(train) == [
        [[0, 0, 20, 30, 0, 0]],
        [[0, 0, 11, 30, 0, 0]],  # 22 x 30 pixels
        [[0, 0, 20, 10, 0, 0]],
        [[0, 0, 20, 30, 0, 0]],
    ]
    for image, (box,) in zip(train.read(range(4)), rows(train), strict=True):
        x, y = int(box[2]), int(box[3])
        assert image[:, : y - 1, : x - 2].min() > 200  # bright to the box's edge
        assert image[:, : y - 1, x + 2 : 2 * x - 1].max() < 50  # then dark to the image's
    second, third = train.read([1, 2])
    mean = torch.tensor([124, 116, 104], dtype=torch.uint8)
    assert (second[:, :, 22:] == mean[:, None, None]).all()
    assert (third[:, 10:] == mean[:, None, None]).all()


def test_the_size_is_that_of_the_first_image_to_a_limit() -> None:
    box = [(0.0, 0, 30, 30, 0, 0)]
    assert made(box, box, sizes=((64, 48), (10, 10))).image_shape == (3, 48, 64)
    assert made(box, sizes=((4000, 3000),)).image_shape == (3, 1000, 1333)
    assert made(box, sizes=((3000, 4000),)).image_shape == (3, 1333, 1000)


def test_an_image_turned_by_its_exif_is_not_mistaken(tmp_path: Path) -> None:
    """Boxes are for the image as it is seen; boxes for the image as it is stored are refused."""
    box = ("ant", 1, 1, 10, 20)
    notes = {"a": xml(box, size=(30, 40)), "b": xml(box, size=(40, 30))}
    root = voc_folder(tmp_path, notes, train="a", test="a")
    for stem in "ab":
        image, exif = Image.new("RGB", (40, 30)), Image.Exif()
        exif[0x0112] = 6
        image.save(root / "JPEGImages" / f"{stem}.jpg", exif=exif)
    data, train, _ = loaded(root)
    assert data.image_shape == (3, 40, 30) and rows(train) == [[[0, 0, 10, 20, 0, 0]]]
    (root / "ImageSets/Main/test.txt").write_text("b")
    with pytest.raises(UserError, match="is for an image of 40 x 30 pixels, and"):
        loaded(root)


def test_a_size_that_a_file_states_wrongly_is_noticed_when_the_image_is_read() -> None:
    box = [array([(0, 0, 9, 9, 0, 0)])]
    wrong = BoxedImages(["x.jpg"], [(30, 40)], box, lambda _: Image.new("RGB", (40, 30)))
    data = boxed("some", CLASSES, [wrong, wrong], None)
    assert data.train is not None
    with pytest.raises(UserError, match=r"x\.jpg has 40 x 30 pixels.*boxes are for 30 x 40"):
        data.train.read([0])


def test_the_scoring_batch_has_boxes_of_rare_classes() -> None:
    common, rare = [(0.0, 0, 9, 9, 0, 0)], [(0.0, 0, 9, 9, 0, 0), (9, 9, 20, 20, 1, 0)]
    crowd = [(0.0, 0, 9, 9, 2, 1)]
    data = made(*[common] * 6, rare, *[[]] * 5, *[crowd] * 2)
    assert data.train is not None
    assert data.train.labels.tolist() == [0] * 6 + [1] + [3] * 7
    assert not data.has_unlabelled and data.has_labels
    for repeat in range(5):
        batch = data.batch(2, repeat=repeat)
        assert sorted(batch.labels[..., 4].amax(1).tolist()) == [0, 1]
        assert (data.batch(7, repeat=repeat).labels[..., 4] != -1).any(1).all()
    assert (data.batch(10).labels[..., 4] != -1).any(1).sum() >= 7


def test_whole_splits_keep_boxes() -> None:
    data = made([(0, 0, 9.5, 9, 1, 0)], [])
    assert data.train is not None
    images, boxes = whole(data.train)
    assert images.shape == (2, 3, 30, 40) and boxes.shape == (2, 1, 6)
    assert boxes.tolist() == [[[0, 0, 9.5, 9, 1, 0]], [[0, 0, 0, 0, -1, 0]]]


def test_a_box_far_outside_is_clipped() -> None:
    data = made([(-1e300, 5, 1e300, 9, 0, 0)])
    assert data.train is not None
    assert rows(data.train) == [[[0, 5, 40, 9, 0, 0]]]


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_coordinates_are_numbers(wrong: float) -> None:
    with pytest.raises(UserError, match="1 has a box whose coordinates are no numbers"):
        made([(0, 0, 9, 9, 0, 0)], [(0, 0, wrong, 9, 0, 0)])


def test_no_boxes_at_all_are_refused() -> None:
    with pytest.raises(UserError, match="some has no boxes in its 2 training images"):
        made([], [])


def test_too_few_images_are_refused() -> None:
    one = image_files(["a"], [(40, 30)], [array([(0, 0, 9, 9, 0, 0)])])
    with pytest.raises(UserError, match="1 images, too few to hold out"):
        boxed("some", CLASSES, [one], None)

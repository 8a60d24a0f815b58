from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diswot.data.dataset import UNLABELLED, Dataset
from diswot.data.registry import create_dataset
from diswot.errors import UserError

SHAPE = (6, 8)  # height and width


def pair(
    root: Path,
    stem: str,
    mask: Image.Image,
    *,
    names: Sequence[str] = ("images", "masks"),
    size: tuple[int, int] = SHAPE,
) -> None:
    """Write an image and its mask."""
    for name in names:
        (root / name).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size[::-1], (250, 0, 0)).save(root / names[0] / f"{stem}.jpg")
    mask.save(root / names[1] / f"{stem}.png")


def indices(*values: int, size: tuple[int, int] = SHAPE) -> Image.Image:
    """A mask that repeats some values over its pixels."""
    return Image.fromarray(np.resize(np.array(values, dtype=np.uint8), size))


def split_folder(root: Path, *values: int) -> str:
    for name, count in (("train", 3), ("val", 2), ("test", 2)):
        for number in range(count):
            pair(root / name, f"{name}{number}", indices(*values))
    return str(root)


def test_splits_of_images_and_masks(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("road\n\ntraffic sign\n")
    data = create_dataset(split_folder(tmp_path, 0, 1, 2, 255))
    assert data.task == "segmentation"
    assert data.classes == ("road", "traffic sign")
    assert data.image_shape == (3, *SHAPE)
    assert repr(data).endswith("2 classes, 8 x 6 pixels, 3 training images, 2 test images)")
    assert data.train is not None
    expected = np.resize([0, 1, UNLABELLED, UNLABELLED], SHAPE)
    assert data.train.targets([0, 2]).tolist() == [expected.tolist()] * 2
    images, masks = data.batch(2)
    assert images.shape == (2, 3, *SHAPE)
    assert masks.shape == (2, *SHAPE)
    assert masks.dtype == torch.int64


def test_classes_are_counted_where_no_file_names_them(tmp_path: Path) -> None:
    data = create_dataset(split_folder(tmp_path, 0, 4, 255))
    assert data.classes == ("class 0", "class 1", "class 2", "class 3", "class 4")


def test_a_fifth_is_held_out_without_splits(tmp_path: Path) -> None:
    for number in range(10):
        pair(tmp_path, str(number), indices(number % 2, 0, 1))
    first, second = (create_dataset(str(tmp_path)) for _ in range(2))
    assert [len(part) for part in (first.train, first.test) if part] == [8, 2]
    assert first.train is not None and second.train is not None
    assert torch.equal(first.train.targets(range(8)), second.train.targets(range(8)))


def test_pascal_voc(tmp_path: Path) -> None:
    listing = tmp_path / "ImageSets" / "Segmentation"
    listing.mkdir(parents=True)
    for stem in "abcd":
        pair(tmp_path, stem, indices(0, 1, 255), names=("JPEGImages", "SegmentationClass"))
    (listing / "train.txt").write_text("a\nc\n")
    (listing / "val.txt").write_text("b\n")
    data = create_dataset(str(tmp_path))
    assert [len(part) for part in (data.train, data.test) if part] == [2, 1]


def test_a_palette_holds_indices(tmp_path: Path) -> None:
    mask = indices(0, 1)
    mask.putpalette([0, 0, 0, 128, 0, 0])
    for number in range(5):
        pair(tmp_path, str(number), mask)
    data = create_dataset(str(tmp_path))
    assert data.train is not None
    assert data.train.targets([0]).unique().tolist() == [0, 1]


def coloured(tmp_path: Path, *colours: tuple[int, int, int]) -> Dataset:
    pixels = np.resize(np.array(colours, dtype=np.uint8), (*SHAPE, 3))
    for number in range(5):
        pair(tmp_path, str(number), Image.fromarray(pixels))
    return create_dataset(str(tmp_path))


def test_colours_are_taken_from_the_file_of_classes(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("sky 128 128 128\ntraffic sign 128 0 0\n")
    data = coloured(tmp_path, (128, 0, 0), (0, 0, 0), (128, 128, 128))
    assert data.classes == ("sky", "traffic sign")
    assert data.train is not None
    assert data.train.targets([0])[0].flatten()[:3].tolist() == [1, UNLABELLED, 0]


def test_grey_masks_may_have_colours(tmp_path: Path) -> None:
    for number in range(5):
        pair(tmp_path, str(number), indices(0, 255))
    (tmp_path / "classes.txt").write_text("\ufeffground 0 0 0\nobject 255 255 255\n", "utf-8")
    data = create_dataset(str(tmp_path))
    assert data.classes == ("ground", "object") and data.train is not None
    assert data.train.targets([0])[0].flatten()[:2].tolist() == [0, 1]


def test_masks_of_0_and_255_alone_are_refused(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("ground\nobject\n")
    with pytest.raises(UserError, match=r"hold class 0 and void \(255\) alone"):
        create_dataset(split_folder(tmp_path, 0, 255))


def test_equal_names_in_several_folders(tmp_path: Path) -> None:
    for film in ("bear", "swan"):
        for kind in ("images", "masks"):
            (tmp_path / kind / film).mkdir(parents=True)
        for number in range(3):
            pair(tmp_path, f"{film}/{number}", indices(0, 1))
    data = create_dataset(str(tmp_path))
    assert [len(part) for part in (data.train, data.test) if part] == [5, 1]
    Image.new("RGB", (8, 6)).save(tmp_path / "images" / "bear" / "0.png")
    with pytest.raises(UserError, match=r"0\.jpg and .*0\.png have the same name"):
        create_dataset(str(tmp_path))


def test_an_unknown_colour_is_refused(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("sky 128 128 128\nroad 128 0 0\n")
    data = coloured(tmp_path, (128, 0, 0), (1, 2, 3))
    assert data.train is not None
    with pytest.raises(UserError, match="has the colour 1 2 3, which is that of no class"):
        data.train.targets([0])


def test_colours_without_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("sky\nroad\n")
    data = coloured(tmp_path, (128, 0, 0))
    assert data.train is not None
    with pytest.raises(UserError, match="is a coloured mask; write a line for each class"):
        data.train.targets([0])


def test_a_value_above_the_classes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("sky\nroad\n")
    data = create_dataset(split_folder(tmp_path, 0, 1, 7))
    assert data.train is not None
    with pytest.raises(UserError, match=r"train0\.png has the value 7, and the classes are 0 to 1"):
        data.train.targets([0])


def test_a_mask_of_another_shape_is_refused(tmp_path: Path) -> None:
    for number in range(5):
        pair(tmp_path, str(number), indices(0, 1, size=(6, 6)))
    data = create_dataset(str(tmp_path))
    assert data.train is not None
    with pytest.raises(UserError, match="has 6 x 6 pixels, its image 8 x 6"):
        data.train.targets([0])


def test_images_and_masks_are_cut_and_resized_alike(tmp_path: Path) -> None:
    picture = np.zeros((40, 80, 3), dtype=np.uint8)
    picture[:, 40:] = 255
    for number in range(5):
        pair(tmp_path, str(number), Image.fromarray(picture[..., 0] // 255))
        Image.fromarray(picture).save(tmp_path / "images" / f"{number}.jpg")
    data = create_dataset(str(tmp_path), img_size=20)
    assert data.image_shape == (3, 20, 40)
    assert data.train is not None
    bright = data.train.read([0])[0, 0] > 127
    assert torch.equal(bright, data.train.targets([0])[0] == 1)


def test_what_has_no_partner_is_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(6):
        pair(tmp_path, str(number), indices(0, 1))
    (tmp_path / "masks" / "3.png").unlink()
    (tmp_path / "images" / "4.jpg").unlink()
    data = create_dataset(str(tmp_path))
    assert [len(part) for part in (data.train, data.test) if part] == [3, 1]
    assert "left out 1 without a mask, such as" in caplog.text
    assert "left out 1 without an image, such as" in caplog.text


@pytest.mark.parametrize(
    ("listed", "message"),
    [("road\n", "needs at least 2 classes"), ("a 1 2 3\nb\n", "a colour of each or of none")],
)
def test_a_wrong_file_of_classes_is_refused(tmp_path: Path, listed: str, message: str) -> None:
    (tmp_path / "classes.txt").write_text(listed)
    with pytest.raises(UserError, match=message):
        create_dataset(split_folder(tmp_path, 0, 1))


def test_no_pair_at_all_is_refused(tmp_path: Path) -> None:
    pair(tmp_path, "a", indices(0, 1))
    (tmp_path / "masks" / "a.png").rename(tmp_path / "masks" / "b.png")
    with pytest.raises(UserError, match=r"no image in .* has a mask of the same name"):
        create_dataset(str(tmp_path))


def test_one_split_alone_is_refused(tmp_path: Path) -> None:
    pair(tmp_path / "train", "a", indices(0, 1))
    with pytest.raises(UserError, match="needs a training and a test split"):
        create_dataset(str(tmp_path))


STORED = {  # how an image is turned before it is stored with an orientation of EXIF
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("own", [False, True])
def test_a_mask_is_for_the_image_as_it_is_seen(orientation: int, own: bool, tmp_path: Path) -> None:
    """The mask is stored as it is seen; or as the image is, with the same orientation."""
    exif, method = Image.Exif(), STORED[orientation]
    exif[0x0112] = orientation
    seen = np.zeros((6, 8), dtype=np.uint8)
    seen[:3, :4], seen[3:, :4] = 1, 2
    mask, image = Image.fromarray(seen), Image.fromarray(100 * seen).convert("RGB")
    mask.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0])
    for stem in "abc":
        pair(tmp_path, stem, mask)
        (tmp_path / "images" / f"{stem}.jpg").unlink()
        for name, whole in (("images", image), *((("masks", mask),) if own else ())):
            turned = whole if method is None else whole.transpose(method)
            turned.save(tmp_path / name / f"{stem}.png", exif=exif)
    (tmp_path / "classes.txt").write_text("ground\nred\ngreen")
    data = create_dataset(str(tmp_path))

    assert data.train is not None and data.image_shape == (3, 6, 8)
    assert torch.equal(data.train.read([0])[0, 0], 100 * torch.from_numpy(seen))
    assert torch.equal(data.train.targets([0])[0], torch.from_numpy(seen).long())


def test_a_mask_of_the_image_as_it_is_stored_is_refused(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for stem in "abc":
        pair(tmp_path, stem, indices(0, 1))
        Image.new("RGB", (8, 6)).save(tmp_path / "images" / f"{stem}.jpg", exif=exif)
    data = create_dataset(str(tmp_path))

    assert data.train is not None and data.image_shape == (3, 8, 6)
    said = "has 8 x 6 pixels, its image 6 x 8; if its EXIF turns the image, turn the mask, too$"
    with pytest.raises(UserError, match=said):
        data.train.targets([0])

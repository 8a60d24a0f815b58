"""Data sets of the hub with boxes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from data.drawn_boxes import SIZE, loaded, picture, rows
from PIL import Image

from diswot.errors import UserError

datasets = pytest.importorskip("datasets", reason="needs the extra hf")

Load = Callable[..., str]
CELLS = [
    {"bbox": [[10, 5, 20, 10]], "category": [1]},
    {"bbox": [], "category": []},
    {"bbox": [[0, 0, 4, 4], [1, 1, 5, 5]], "category": [0, 1]},
]
NAMED = datasets.ClassLabel(names=["cat", "ant"])
FLOATS = datasets.Sequence(datasets.Value("float32"))
LISTS = {"bbox": datasets.Sequence(FLOATS), "category": datasets.Sequence(NAMED)}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Lets the library load tables of the splits: cells of objects, and other columns."""

    def load(objects: object = LISTS, column: str = "objects", **splits: list[Any]) -> str:
        features = {"image": datasets.Image(), column: objects}
        tables = {
            split: datasets.Dataset.from_dict(
                {"image": [Image.new("RGB", SIZE)] * len(cells), column: cells},
                features=datasets.Features(features),
            )
            for split, cells in splits.items()
        }
        made = datasets.DatasetDict(tables)
        monkeypatch.setattr(
            datasets,
            "load_dataset",
            lambda path, config, split: made["train"].select(range(5)) if split else made,
        )
        return "hf:someone/insects"

    return load


def test_named_categories(hub: Load) -> None:
    data, train, test = loaded(hub(train=CELLS, validation=CELLS[:1]))
    assert data.classes == ("cat", "ant") and data.image_shape == (3, 30, 40)
    assert rows(train)[:2] == [[[10, 5, 30, 15, 1, 0]], []]
    assert rows(test) == [[[10, 5, 30, 15, 1, 0]]]
    assert train.read([0, 2]).shape == (2, 3, 30, 40)


@pytest.mark.parametrize("value", ["int64", "string"])
def test_categories_without_names(hub: Load, value: str) -> None:
    kind = datasets.List({"bbox": FLOATS, "label": datasets.Value(value), "iscrowd": NAMED})
    cells = [
        [{"bbox": [0, 0, 9, 9], "label": label, "iscrowd": label == 10} for label in (2, 10)]
    ] * 3
    data, train, _ = loaded(hub(kind, "faces", train=cells, test=cells))
    assert data.classes == (("2", "10") if value == "int64" else ("10", "2"))
    by_name = {data.classes[int(box[4])]: box[5] for box in rows(train)[0]}
    assert by_name == {"2": 0, "10": 1}


def test_splits(hub: Load, caplog: pytest.LogCaptureFixture) -> None:
    _, train, test = loaded(hub(train=CELLS, validation=CELLS[:1], test=CELLS[:2]))
    assert (len(train), len(test)) == (3, 2)
    assert "left out the split val, as there is a split test" in caplog.text
    _, train, test = loaded(hub(train=CELLS, validation=CELLS[:1], test=[CELLS[1]] * 2))
    assert (len(train), len(test)) == (3, 1)  # the boxes of `test` are not known
    _, train, test = loaded(hub(default=CELLS, test=CELLS[:2]))
    assert (len(train), len(test)) == (3, 2)
    hub(train=CELLS * 3, test=CELLS)
    _, train, test = loaded(Path("hf:someone/insects:train[:5]"))
    assert (len(train), len(test)) == (4, 1)


def test_a_folder_of_parquet_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    features = {"image": datasets.Image(), "objects": LISTS}
    sides = {side: datasets.Value("int32") for side in ("width", "height")}
    for split in ("train", "test"):
        cells = [str(picture(tmp_path / f"{i}.png", (80, 60))) for i in range(3)]
        table = {"image": cells, "objects": CELLS, "width": [80] * 3, "height": [60] * 3}
        made = datasets.Dataset.from_dict(table, features=datasets.Features(features | sides))
        made.to_parquet(tmp_path / "set" / f"{split}.parquet")
    data, train, _ = loaded(Path(f"hf:{tmp_path}/set"))
    assert data.image_shape == (3, 60, 80) and train.read([1]).shape == (1, 3, 60, 80)
    with pytest.raises(UserError, match="has boxes; write hf: before its folder"):
        loaded(tmp_path / "set")


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ({"bbox": [[1, 2, 3]], "category": [0]}, "row 1 of .*:train has no bbox of four numbers"),
        ({"bbox": [[1, 2, 3, 4]], "category": [0, 1]}, "row 1 .* other numbers of boxes than"),
        ({"bbox": [[1, 2, 3, 4]], "category": [-1]}, "row 1 .*: -1 is none of its categories"),
        ({"bbox": [[1, 2, 3, 4]], "category": [None]}, "row 1 .* has a box without a category"),
        ({"bbox": [[1, 2, 3, float("nan")]], "category": [0]}, "row 1 .* has no bbox of four"),
    ],
)
def test_a_wrong_row_is_refused(hub: Load, cell: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        loaded(hub(train=[CELLS[0], cell], test=CELLS))


def test_a_box_without_categories_is_refused(hub: Load) -> None:
    with pytest.raises(UserError, match=r"row 0 .* has a box without a category"):
        loaded(hub({"bbox": LISTS["bbox"]}, train=[{"bbox": [[1, 2, 3, 4]]}], test=CELLS[:0]))

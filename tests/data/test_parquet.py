"""Parquet files, and data sets of the hub through its library, against images in memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from diswot.data.dataset import whole
from diswot.data.decode import fitted
from diswot.data.registry import create_dataset
from diswot.errors import UserError

pa = pytest.importorskip("pyarrow", reason="needs the extra hf")
pq = pytest.importorskip("pyarrow.parquet", reason="needs the extra hf")
CLASSES = ["cat", "dog", "owl"]


def pixels(seed: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)


def png(seed: int) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels(seed)).save(file, "PNG")
    return file.getvalue()


def as_tensor(seed: int) -> Tensor:
    return torch.from_numpy(pixels(seed)).permute(2, 0, 1)


def write(
    path: Path,
    seeds: Sequence[int],
    labels: Sequence[Any],
    *,
    struct: bool = True,
    named: bool = True,
    image: str = "image",
    group: int = 4,
) -> None:
    cells = [{"bytes": png(s), "path": f"{s}.png"} if struct else png(s) for s in seeds]
    table = pa.table({image: cells, "label": list(labels), "note": ["x"] * len(cells)})
    if named:
        features = {image: {"_type": "Image"}, "label": {"names": CLASSES, "_type": "ClassLabel"}}
        facts = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": facts})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=group)


@pytest.mark.parametrize("struct", [True, False])
@pytest.mark.parametrize("inner", ["", "data"])
def test_folder_with_two_splits(tmp_path: Path, struct: bool, inner: str) -> None:
    root = tmp_path / inner
    write(root / "train-00000-of-00002.parquet", range(10), [i % 3 for i in range(10)])
    write(root / "train-00001-of-00002.parquet", range(10, 13), [2, 1, 0], struct=struct)
    write(root / "test-00000-of-00001.parquet", range(20, 23), [0, 1, 2])
    found = create_dataset(str(tmp_path))
    assert found.train is not None and found.test is not None
    assert found.classes == tuple(CLASSES) and found.size == 6
    assert found.train.labels.tolist() == [i % 3 for i in range(10)] + [2, 1, 0]
    assert torch.equal(whole(found.train)[0], torch.stack([as_tensor(s) for s in range(13)]))
    assert torch.equal(found.train.read([12, 3])[0], as_tensor(12))
    assert torch.equal(whole(found.test)[0], torch.stack([as_tensor(s) for s in (20, 21, 22)]))


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["b", "a"] * 10, ("a", "b")),
        ([0, 2] * 10, ("0", "2")),
        ([3, 70, 500, 9999] * 5, ("3", "70", "500", "9999")),
        ([10_000_004, 10_000_001] * 10, ("10000001", "10000004")),
        ([1, 2, 3, 4] * 5, ("1", "2", "3", "4")),
        ([1.0, 2.0] * 10, ("1", "2")),
        ([True, False] * 10, ("False", "True")),
    ],
)
def test_one_file_without_names(
    tmp_path: Path, labels: list[Any], classes: tuple[str, ...]
) -> None:
    write(tmp_path / "my.parquet", range(20), labels, named=False)
    found = create_dataset(str(tmp_path / "my.parquet"), img_size=4)
    assert found.train is not None and found.test is not None
    assert found.classes == classes and (len(found.train), len(found.test)) == (16, 4)
    kept = sorted(found.train.labels.tolist() + found.test.labels.tolist())
    whole_numbers = [int(label) if isinstance(label, float) else label for label in labels]
    assert kept == sorted(classes.index(str(label)) for label in whole_numbers)
    images, known = (
        torch.cat(part) for part in zip(whole(found.train), whole(found.test), strict=True)
    )
    for seed, label in enumerate(whole_numbers):
        same = (images == fitted(Image.fromarray(pixels(seed)), 4)).flatten(1).all(1)
        assert [classes[k] for k in known[same].tolist()] == [str(label)]


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        ([[1], [2]] * 10, "list"),
        ([[0, 1], [1, 0]] * 10, "list"),  # one-hot
        ([{"id": 1}, {"id": 2}] * 10, "dict"),
        ([0.5, 1.0] * 10, "fraction"),
        ([b"cat", b"dog"] * 10, "bytes"),
    ],
)
def test_labels_that_are_no_classes(tmp_path: Path, labels: list[Any], kind: str) -> None:
    write(tmp_path / "a.parquet", range(20), labels, named=False)
    with pytest.raises(UserError, match=rf"row 0 of .* has a {kind} as its label") as caught:
        create_dataset(str(tmp_path / "a.parquet"))
    assert "\n" not in str(caught.value)


def test_names_of_splits(tmp_path: Path) -> None:
    """They are those of folders."""
    for name, count in (("cats_training", 4), ("cats_valid", 3), ("testset", 2)):
        write(tmp_path / f"{name}.parquet", range(count), [0, 1, 0, 1][:count])
    found = create_dataset(str(tmp_path))
    assert found.train is not None and found.test is not None
    assert (len(found.train), len(found.test)) == (4, 2)


def test_ids_in_two_splits(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", range(4), [500, 3, 500, 3], named=False)
    write(tmp_path / "test.parquet", [8], [500], named=False)
    found = create_dataset(str(tmp_path))
    assert found.train is not None and found.test is not None
    assert found.classes == ("3", "500")
    assert found.train.labels.tolist() == [1, 0, 1, 0] and found.test.labels.tolist() == [1]
    write(tmp_path / "test.parquet", [8], [70], named=False)
    with pytest.raises(UserError, match="has the label 70, which is none of its classes"):
        create_dataset(str(tmp_path))
    write(tmp_path / "test.parquet", [8], [1])
    with pytest.raises(UserError, match="only one of the training and test tables lists its"):
        create_dataset(str(tmp_path))


def test_the_class_with_too_few_images_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", range(21), [7] * 10 + [9] * 10 + [8], named=False)
    with pytest.raises(UserError, match=r"21 of 3 classes, 1 of the rarest, 8$"):
        create_dataset(str(tmp_path / "a.parquet"))


def test_a_batch_reads_only_the_row_groups_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "train.parquet", range(60), [i % 3 for i in range(60)], group=5)
    asked: list[tuple[int, list[str]]] = []
    real = pq.ParquetFile.read_row_group

    def spy(self: Any, group: int, columns: list[str]) -> Any:
        asked.append((group, columns))
        return real(self, group, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", spy)
    found = create_dataset(str(tmp_path / "train.parquet"))
    _, labels = found.batch(4)
    assert len(labels) == 4 and len(asked) <= 1 + 4
    assert {tuple(columns) for _, columns in asked} == {("image",)}


def test_each_row_group_is_read_once_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where other threads ask for other groups in between, as if there were no cache."""
    monkeypatch.setattr("diswot.data.parquet.lru_cache", lambda maxsize: lambda read: read)
    write(tmp_path / "train.parquet", range(20), [i % 2 for i in range(20)], group=5)
    write(tmp_path / "test.parquet", range(2), [0, 1])
    found = create_dataset(str(tmp_path)).train
    asked: list[int] = []
    real = pq.ParquetFile.read_row_group

    def spy(self: Any, group: int, columns: list[str]) -> Any:
        asked.append(group)
        return real(self, group, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", spy)
    assert found is not None
    assert torch.equal(found.read([19, 0, 18, 1])[1], as_tensor(0))
    assert asked == [0, 3]


def test_a_column_of_lists(tmp_path: Path) -> None:
    """Its feature is a list, not a mapping."""
    path = tmp_path / "train.parquet"
    features = {"tags": [{"dtype": "string"}], "label": {"names": CLASSES}}
    facts = json.dumps({"info": {"features": features}})
    table = pa.table({"image": [png(i) for i in range(20)], "label": [0, 1] * 10})
    table = table.append_column("tags", pa.array([["a"]] * 20))
    pq.write_table(table.replace_schema_metadata({"huggingface": facts}), path)
    assert create_dataset(str(path)).classes == tuple(CLASSES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [0, 1, 3, 0]}, "row 2 of .* has the label 3, which is none of its classes"),
        ({"labels": [0, 1, None, 0]}, "row 2 of .* has no label"),
        ({"labels": [-1, 1, 0, 0]}, "row 0 of .* has the label -1"),
    ],
)
def test_bad_labels(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    write(tmp_path / "a.parquet", range(4), change["labels"])
    with pytest.raises(UserError, match=message):
        create_dataset(str(tmp_path / "a.parquet"))


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    table = pa.table({"image": [png(i) for i in range(9)] + [b"no image"], "label": [0, 1] * 5})
    pq.write_table(table, tmp_path / "a.parquet")
    found = create_dataset(str(tmp_path / "a.parquet"))
    assert found.train is not None and found.test is not None
    with pytest.raises(UserError, match=r"row 9 of .*a\.parquet cannot be read as an image"):
        for split in (found.train, found.test):
            whole(split)


def test_other_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [b"x", b"y"], "b": [b"x", b"y"]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"which column is the image\? .*there: a, b"):
        create_dataset(str(tmp_path / "a.parquet"))
    pq.write_table(pa.table({"a": [b"x", b"y"], "b": [0, 1]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"which column is the label\?"):
        create_dataset(str(tmp_path / "a.parquet"))


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"\0" * 50 + b"PAR1"])
def test_garbage(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(UserError, match=r"a.parquet cannot be read as Parquet"):
        create_dataset(str(tmp_path / "a.parquet"))


class TestHub:
    @pytest.fixture(autouse=True)
    def caches(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        datasets = pytest.importorskip("datasets", reason="needs the extra hf")
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)

    def made(self, root: Path) -> str:
        write(root / "data" / "train-0.parquet", range(10), [i % 3 for i in range(10)], image="img")
        write(root / "data" / "validation-0.parquet", [20, 21], [2, 0], image="img")
        write(root / "data" / "test-0.parquet", [30, 31], [-1, -1], image="img")
        return f"hf:{root}"

    def test_by_its_library(self, tmp_path: Path) -> None:
        found = create_dataset(self.made(tmp_path / "set"))
        assert found.train is not None and found.test is not None
        assert found.classes == tuple(CLASSES) and found.size == 6
        assert torch.equal(whole(found.train)[0], torch.stack([as_tensor(s) for s in range(10)]))
        assert found.test.labels.tolist() == [2, 0]  # the labels of `test` are not known
        assert torch.equal(found.test.read([1])[0], as_tensor(21))

    def test_a_slice_of_a_split(self, tmp_path: Path) -> None:
        name = self.made(tmp_path / "set")
        with pytest.raises(UserError, match="too few images to hold out 20 %"):
            create_dataset(f"{name}:train[:2]")
        write(tmp_path / "set" / "data" / "train-0.parquet", range(30), [0, 1, 2] * 10, image="img")
        found = create_dataset(f"{name}:train[:50%]")
        assert found.train is not None and found.test is not None
        assert (len(found.train), len(found.test)) == (12, 3)

    def test_by_name_and_configuration(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import datasets

        asked: list[tuple[Any, ...]] = []

        def load(path: str, config: str | None, split: str | None) -> Any:
            asked.append((path, config, split))
            features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES)}
            cells = [{"bytes": png(i), "path": None} for i in range(30)]
            table = {"image": cells, "label": [i % 3 for i in range(30)]}
            return datasets.Dataset.from_dict(table, features=datasets.Features(features))

        monkeypatch.setattr(datasets, "load_dataset", load)
        found = create_dataset("hf:someone/birds,small:train", img_size=4)
        assert asked == [("someone/birds", "small", "train")]
        assert found.classes == tuple(CLASSES) and found.image_shape == (3, 4, 4)

    @pytest.mark.parametrize(
        ("labels", "found"),
        [([[0, 1], [1, 0]] * 5, "row 0 of .* has a list as its label"), ([500, 3] * 5, None)],
    )
    def test_labels_without_names(
        self, labels: list[Any], found: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import datasets

        cells = [{"bytes": png(i), "path": None} for i in range(10)]
        table = datasets.Dataset.from_dict({"image": cells, "label": labels})
        table = table.cast_column("image", datasets.Image())
        splits = datasets.DatasetDict({"train": table, "test": table})
        monkeypatch.setattr(datasets, "load_dataset", lambda *given, **more: splits)
        if found is None:
            data = create_dataset("hf:someone/ids", img_size=4)
            assert data.classes == ("3", "500") and data.test is not None
            assert data.test.labels.tolist() == [1, 0] * 5
        else:
            with pytest.raises(UserError, match=found):
                create_dataset("hf:someone/ids", img_size=4)

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("hf:", "names no data set"),
            ("hf:./nothing", "no such folder: ./nothing"),
            ("hf:someone/nothing", "hf:someone/nothing is not here, and cannot be fetched: "),
        ],
    )
    def test_absent(self, name: str, message: str) -> None:
        with pytest.raises(UserError, match=message) as caught:
            create_dataset(name)
        assert "\n" not in str(caught.value)

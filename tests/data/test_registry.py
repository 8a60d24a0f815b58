"""Data by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from diswot.data.registry import SETS, create_dataset
from diswot.errors import UserError


class TestNames:
    @pytest.mark.parametrize(
        ("name", "hint"), [("digit", "digits"), ("cifar", "cifar10"), ("nois", "noise")]
    )
    def test_nearest(self, name: str, hint: str) -> None:
        with pytest.raises(UserError, match=f"unknown data '{name}'; did you mean .*{hint}"):
            create_dataset(name)

    def test_nothing_near(self) -> None:
        with pytest.raises(UserError, match=r"known: a .parquet file, a folder of images, .*noise"):
            create_dataset("zzzzqqqq")

    def test_empty_name_is_not_this_folder(self) -> None:
        with pytest.raises(UserError, match="unknown data ''"):
            create_dataset("")

    def test_a_file(self, tmp_path: Path) -> None:
        place = tmp_path / "cifar100.zip"
        place.write_bytes(b"PK")
        with pytest.raises(UserError, match=r"cifar100.zip is a file; name a folder"):
            create_dataset(str(place))

    @pytest.mark.parametrize("size", [0, -4])
    @pytest.mark.parametrize("name", ["noise", "digits", "."])
    def test_impossible_size(self, name: str, size: int) -> None:
        with pytest.raises(UserError, match=f"at least 1 pixel a side, not {size}"):
            create_dataset(name, img_size=size)

    def test_every_set_has_a_summary(self) -> None:
        assert all(row.summary for row in SETS.values())

"""Stand-ins for harmless objects in pickles."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch

from diswot.errors import UserError
from diswot.utils.plain_pickle import PlainDtype, plain_number
from diswot.utils.state_dicts import read_weights


class Harm:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.place),)


@pytest.mark.parametrize(
    "beside",
    [
        np.float64(93.1),
        np.float32(1),
        np.int64(3),
        np.bool_(True),
        np.complex64(1),
        np.str_("a"),
        np.array([1.0, 2.0]),
        np.array(["a", None], dtype=object),
        Path("/somewhere"),
        PurePosixPath("/somewhere"),
    ],
)
def test_what_scripts_store_beside_weights(beside: object, tmp_path: Path) -> None:
    state = {"weight": torch.arange(3.0)}
    torch.save({"state_dict": state, "best": beside}, tmp_path / "w.pt")

    read = read_weights(tmp_path / "w.pt")

    assert read.keys() == state.keys() and torch.equal(read["weight"], state["weight"])


@pytest.mark.parametrize("wrap", [lambda each: each, lambda each: np.array([each], dtype=object)])
def test_nothing_is_called(wrap: Any, tmp_path: Path) -> None:
    place = tmp_path / "made"
    torch.save({"state_dict": {"weight": torch.ones(1)}, "x": wrap(Harm(place))}, tmp_path / "w.pt")

    with pytest.raises(UserError, match="mkdir, and loading these could run code"):
        read_weights(tmp_path / "w.pt")
    assert not place.exists()


@pytest.mark.parametrize(
    "number", [np.float64(0.1), np.float32(0.1), np.float16(0.1), np.int64(-7)]
)
def test_numbers(number: Any) -> None:
    code = number.dtype.str[1:]

    assert plain_number(PlainDtype(code), number.tobytes()) == number.item()

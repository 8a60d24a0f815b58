"""Stand-ins for harmless objects in pickles, so that nothing of NumPy or of paths is called."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

_FORMATS = {"f8": "<d", "f4": "<f", "f2": "<e", "i8": "<q", "i4": "<i", "b1": "<?"}


class PlainDtype:
    """Stand-in for a NumPy dtype, by its code, such as `f8`."""

    def __init__(self, code: str, *_: object) -> None:
        self.code = code

    def __setstate__(self, state: object) -> None:
        """Drop the state, such as the byte order: files are little-endian."""


def plain_number(dtype: PlainDtype, data: bytes) -> float | int:
    """Decode the bytes of a NumPy number as a Python number."""
    value: float | int = struct.unpack(_FORMATS[dtype.code], data)[0]
    return value


def _number_or_nothing(dtype: PlainDtype, data: object) -> object:
    """Decode a NumPy number; drop a value of another type, such as a text."""
    if isinstance(data, bytes) and dtype.code in _FORMATS:
        return plain_number(dtype, data)
    return Dropped()


class Dropped:
    """Stand-in for an object whose content is not read."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        """Drop the content."""


_PATHS = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")

# What training scripts store beside a state dict, by its name in a pickle.
STAND_INS: list[tuple[Callable[..., Any], str]] = [
    (PlainDtype, "numpy.dtype"),
    *((_number_or_nothing, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((Dropped, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    (Dropped, "numpy.ndarray"),
    *((Dropped, f"pathlib.{name}") for name in _PATHS),
    *((Dropped, f"pathlib._local.{name}") for name in _PATHS),
]

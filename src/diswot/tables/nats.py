"""The topology space of NATS-Bench from its own files, without the benchmark's code.

A folder such as `NATS-tss-v1_0-3ffb9-simple` (Dong et al., TPAMI 2021, arXiv 2009.00437) holds
`meta.pickle.pbz2` and a file an architecture, `000000.pickle.pbz2` and on: bzip2 over a pickle of
dicts, lists, strings and numbers. A pickle can name any function to be called; here only ordered
dicts and NumPy's numbers are known, and every other name is refused before anything is called.

An accuracy is the top-1 test accuracy after the last of 200 epochs, mean over the seeds there are:
`cifar10` by `ori-test` (trained on training and validation images), `cifar100` and
`ImageNet16-120` by `x-test`, as the benchmark's own API names them.
"""

from __future__ import annotations

import bz2
import pickle
import struct
from collections import OrderedDict
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from statistics import fmean
from typing import Any

from diswot.errors import UserError

_PATTERN = "[0-9]*.pickle.pbz2"
_EPOCHS = "200"
_MOST = 256 * 2**20  # bytes of one architecture, unpacked
_TARGETS = {
    "cifar10_test": ("cifar10", "ori-test"),
    "cifar100_test": ("cifar100", "x-test"),
    "imagenet16_120_test": ("ImageNet16-120", "x-test"),
}


def is_nats(folder: Path) -> bool:
    """Whether a folder holds such files."""
    return any(True for _ in folder.glob(_PATTERN))


def read_nats(folder: Path) -> list[dict[str, Any]]:
    """An `arch` in the benchmark's notation and three accuracies a file, by number.

    Raises:
        UserError: A file is damaged, or holds something else.
    """
    paths = sorted(folder.glob(_PATTERN), key=lambda path: int(path.name.partition(".")[0]))
    return [_record(path) for path in paths]


def _record(path: Path) -> dict[str, Any]:
    try:
        found = load(path)[_EPOCHS]
        accuracies = {name: _accuracy(found, *where) for name, where in _TARGETS.items()}
        return {"arch": str(found["arch_str"]), **accuracies}
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is not laid out as NATS-Bench's files are: {error!r}") from error


def _accuracy(found: Mapping[str, Any], dataset: str, split: str) -> float:
    """Mean over seeds; NaN where the architecture was not trained on the data set."""
    runs = [found["all_results"][dataset, seed] for seed in found["dataset_seed"].get(dataset, [])]
    values = [float(run["eval_acc1es"][f"{split}@{run['epochs'] - 1}"]) for run in runs]
    return fmean(values) if values else float("nan")


def load(path: Path) -> Any:
    """Unpickle plain values; whatever else a pickle names is refused.

    Raises:
        UserError: It names something else, or the file is damaged or too large.
    """
    try:
        with bz2.BZ2File(path) as file:
            data = file.read(_MOST + 1)
    except (OSError, EOFError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    if len(data) > _MOST:
        raise UserError(f"{path} is larger than any file of NATS-Bench, unpacked")
    try:
        return _Plain(BytesIO(data)).load()
    except UserError as error:
        raise UserError(f"{path} {error}") from error
    except Exception as error:  # a damaged pickle raises whatever comes
        raise UserError(f"{path} is no pickle of plain values") from error


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        known = {
            ("collections", "OrderedDict"): OrderedDict,
            ("numpy", "dtype"): _Kind,
            ("numpy.core.multiarray", "scalar"): _number,
            ("numpy._core.multiarray", "scalar"): _number,
        }
        if (module, name) not in known:
            raise UserError(f"asks for {module}.{name}; only plain values are read")
        return known[module, name]


class _Kind:
    """Stands for a NumPy dtype."""

    def __init__(self, code: str, *_: object) -> None:
        self.code = code

    def __setstate__(self, state: object) -> None:
        """The byte order and more; all files are little-endian."""


def _number(kind: _Kind, data: bytes) -> float | int:
    """A NumPy number as Python's own."""
    formats = {"f8": "<d", "f4": "<f", "f2": "<e", "i8": "<q", "i4": "<i"}
    value: float | int = struct.unpack(formats[kind.code], data)[0]
    return value

"""The topology space of NATS-Bench from its own files, without the benchmark's code.

A folder such as `NATS-tss-v1_0-3ffb9-simple` (Dong et al., TPAMI 2021, arXiv 2009.00437) holds
`meta.pickle.pbz2` and a file an architecture, `000000.pickle.pbz2` and on: bzip2 over a pickle of
dicts, lists, strings and numbers. A pickle can name any function to be called; here only ordered
dicts and NumPy's numbers are known, and every other name is refused before anything is called. What
a pickle can do besides is cut down to what makes plain values. It is read by Python's reader in
Python: the one in C takes memory for as many values as a pickle claims to number.

An accuracy is the top-1 test accuracy after the last of 200 epochs, mean over the seeds there are:
`cifar10` by `ori-test` (trained on training and validation images), `cifar100` and
`ImageNet16-120` by `x-test`, as the benchmark's own API names them.
"""

from __future__ import annotations

import bz2
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

from diswot.errors import UserError

Load = Callable[[Any], None]  # what a reader of pickles does at an opcode

_PATTERN = "[0-9]*.pickle.pbz2"
_EPOCHS = "200"
_MOST = 256 * 2**20  # bytes of one architecture, unpacked
_TOLD = 200  # characters of what is wrong
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
        return {"arch": _text(found["arch_str"]), **accuracies}
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        if isinstance(error, UserError):
            raise
        reason = repr(error)[:_TOLD]
        raise UserError(f"{path} is not laid out as NATS-Bench's files are: {reason}") from error


def _text(found: Any) -> str:
    if not isinstance(found, str):
        raise TypeError(f"an arch_str is a text, not {type(found).__name__}")
    return found


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


def _flat(make: Load) -> Load:
    """Refuse a tuple in a tuple: Python hashes those in each other without a limit of depth."""

    def load(reader: Any) -> None:
        make(reader)
        if any(isinstance(part, tuple) for part in reader.stack[-1]):
            raise UserError("holds a tuple in a tuple; only plain values are read")

    return load


def _drop_state(reader: Any) -> None:
    """The byte order of a NumPy dtype and more; all files are little-endian."""
    reader.stack.pop()


_TUPLES = (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3)
_OPCODES = (
    *(pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.EMPTY_TUPLE),
    *(pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.FLOAT, pickle.BINFLOAT),
    *(pickle.INT, pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG, pickle.LONG1),
    *(pickle.STRING, pickle.BINSTRING, pickle.SHORT_BINSTRING),
    *(pickle.UNICODE, pickle.BINUNICODE, pickle.SHORT_BINUNICODE),
    *(pickle.BINBYTES, pickle.SHORT_BINBYTES),
    *(pickle.LIST, pickle.EMPTY_LIST, pickle.APPEND, pickle.APPENDS),
    *(pickle.DICT, pickle.EMPTY_DICT, pickle.SETITEM, pickle.SETITEMS),
    *(pickle.GET, pickle.BINGET, pickle.LONG_BINGET),
    *(pickle.PUT, pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE),
    *(pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.REDUCE),
)


class _Plain(pickle._Unpickler):
    dispatch: ClassVar[dict[int, Load]] = {
        **{code[0]: pickle._Unpickler.dispatch[code[0]] for code in _OPCODES},
        **{code[0]: _flat(pickle._Unpickler.dispatch[code[0]]) for code in _TUPLES},
        pickle.BUILD[0]: _drop_state,
    }

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


def _number(kind: _Kind, data: bytes) -> float | int:
    """A NumPy number as Python's own."""
    formats = {"f8": "<d", "f4": "<f", "f2": "<e", "i8": "<q", "i4": "<i"}
    value: float | int = struct.unpack(formats[kind.code], data)[0]
    return value

"""Reader of the topology space of NATS-Bench, without the benchmark's code.

A folder such as `NATS-tss-v1_0-3ffb9-simple` (Dong et al., TPAMI 2021, arXiv 2009.00437) holds
`meta.pickle.pbz2` and one file per architecture, `000000.pickle.pbz2` and so forth. Each file is a
pickle of dicts, lists, strings and numbers, compressed by bzip2.

A pickle can call any function by name. This reader knows only ordered dicts and NumPy's numbers; it
refuses every other name before a call, and every opcode that plain values do not need. It extends
Python's unpickler written in Python, as the one in C allocates as much memory as a pickle asks for.

An accuracy is the top-1 test accuracy after the last of 200 epochs, mean over the seeds. The split
is `ori-test` for `cifar10` (trained on training and validation images) and `x-test` for `cifar100`
and `ImageNet16-120`, in the names of the benchmark's API.
"""

from __future__ import annotations

import bz2
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

from diswot.errors import UserError
from diswot.utils.plain_pickle import PlainDtype, plain_number

LoadOpcode = Callable[[Any], None]  # an unpickler's function for one opcode

_PATTERN = "[0-9]*.pickle.pbz2"
_EPOCHS = "200"
_MAX_BYTES = 256 * 2**20  # size of an unpacked file
_MAX_REASON = 200  # characters of an error's reason
_TARGETS = {
    "cifar10_test": ("cifar10", "ori-test"),
    "cifar100_test": ("cifar100", "x-test"),
    "imagenet16_120_test": ("ImageNet16-120", "x-test"),
}


def is_nats(folder: Path) -> bool:
    """Return whether a folder holds files of NATS-Bench."""
    return any(True for _ in folder.glob(_PATTERN))


def read_nats(folder: Path) -> list[dict[str, Any]]:
    """Read an architecture in the benchmark's notation and three accuracies from each file.

    Raises:
        UserError: A file is damaged, or has another layout.
    """
    paths = sorted(folder.glob(_PATTERN), key=lambda path: int(path.name.partition(".")[0]))
    return [_record(path) for path in paths]


def _record(path: Path) -> dict[str, Any]:
    try:
        found = _trained(load(path), path)
        accuracies = {name: _accuracy(found, *where) for name, where in _TARGETS.items()}
        return {"arch": _text(found["arch_str"]), **accuracies}
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        if isinstance(error, UserError):
            raise
        reason = repr(error)[:_MAX_REASON]
        raise UserError(f"{path} has another layout than files of NATS-Bench: {reason}") from error


def _trained(found: Any, path: Path) -> Any:
    """Return the results after 200 epochs.

    Raises:
        UserError: The file has those of another number, as the size space has.
    """
    lengths = sorted(int(key) for key in found if isinstance(key, str) and key.isdigit())
    if lengths and _EPOCHS not in found:
        if 90 in lengths:
            raise UserError(
                f"{path} is of the size space of NATS-Bench (sss), which is no space here; the "
                "topology space (tss) can be read"
            )
        shown = " and ".join(map(str, lengths))
        raise UserError(
            f"{path} has accuracies after {shown} epochs alone, and those after {_EPOCHS} are read"
        )
    return found[_EPOCHS]


def _text(found: Any) -> str:
    if not isinstance(found, str):
        raise TypeError(f"an arch_str is a string, not {type(found).__name__}")
    return found


def _accuracy(found: Mapping[str, Any], dataset: str, split: str) -> float:
    """Average over seeds; NaN if the architecture was not trained on the data set."""
    runs = [found["all_results"][dataset, seed] for seed in found["dataset_seed"].get(dataset, [])]
    values = [float(run["eval_acc1es"][f"{split}@{run['epochs'] - 1}"]) for run in runs]
    return fmean(values) if values else float("nan")


def load(path: Path) -> Any:
    """Unpickle plain values, without any call of a function that the pickle names.

    Raises:
        UserError: The pickle names a function, or the file is damaged or too large.
    """
    try:
        with bz2.BZ2File(path) as file:
            data = file.read(_MAX_BYTES + 1)
    except (OSError, EOFError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    if len(data) > _MAX_BYTES:
        raise UserError(f"{path} unpacks to more than any file of NATS-Bench")
    try:
        return _Plain(BytesIO(data)).load()
    except UserError as error:
        raise UserError(f"{path} {error}") from error
    except Exception as error:  # a damaged pickle may raise anything
        raise UserError(f"{path} is not a pickle of plain values") from error


def _flat(make: LoadOpcode) -> LoadOpcode:
    """Refuse tuples inside tuples, as Python hashes them recursively without a depth limit."""

    def load(reader: Any) -> None:
        make(reader)
        if any(isinstance(part, tuple) for part in reader.stack[-1]):
            raise UserError("holds a tuple in a tuple; only plain values are allowed")

    return load


def _drop_state(reader: Any) -> None:
    """Drop the state of a NumPy dtype, such as its byte order; all files are little-endian."""
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
    dispatch: ClassVar[dict[int, LoadOpcode]] = {
        **{code[0]: pickle._Unpickler.dispatch[code[0]] for code in _OPCODES},
        **{code[0]: _flat(pickle._Unpickler.dispatch[code[0]]) for code in _TUPLES},
        pickle.BUILD[0]: _drop_state,
    }

    def find_class(self, module: str, name: str) -> Any:
        known = {
            ("collections", "OrderedDict"): OrderedDict,
            ("numpy", "dtype"): PlainDtype,
            ("numpy.core.multiarray", "scalar"): plain_number,
            ("numpy._core.multiarray", "scalar"): plain_number,
        }
        if (module, name) not in known:
            raise UserError(f"asks for {module}.{name}; only plain values are allowed")
        return known[module, name]

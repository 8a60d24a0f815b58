"""A user's own function, named on the command line as `file.py:function`."""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
import traceback
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.abc import ExecutionLoader
from importlib.util import decode_source
from pathlib import Path
from types import ModuleType
from typing import Any, Self

from diswot.errors import UserError, unknown


def is_spec(name: str) -> bool:
    """Whether a name has the form `file.py:function`, or `file.py` with the function forgotten."""
    return name.endswith(".py") or name.rpartition(":")[0].endswith(".py")


def absolute(name: str) -> str:
    """The same name from the root on, so that it holds in any folder."""
    path, colon, function = name.rpartition(":")
    return f"{Path(path).resolve()}{colon}{function}" if path else str(Path(name).resolve())


def load(name: str, **options: Any) -> Callable[..., Any]:
    """Import `file.py` and return its `function`, with those options that it takes bound.

    The file's code is run: it is the user's own. It may import what lies beside it.

    Raises:
        UserError: The file or the function in it does not exist, or the file fails to import.
    """
    if name.endswith(".py"):
        raise UserError(f"name a function in {name}, as {name}:function")
    path, _, attribute = name.rpartition(":")
    if not Path(path).is_file():
        raise UserError(f"no such file: {path}")
    module = _module(Source.read(path), path)
    functions = {key: value for key, value in vars(module).items() if callable(value)}
    if attribute not in functions:
        raise unknown(f"function in {path}", attribute, functions)
    return bind(functions[attribute], **options)


def bind(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """The function with those options bound that it takes."""
    taken = inspect.signature(function).parameters
    return partial(function, **{key: value for key, value in options.items() if key in taken})


@dataclass(frozen=True)
class Source:
    """A user's file, as it was read.

    Attributes:
        path: From the root on.
        content: Its bytes.
    """

    path: Path
    content: bytes

    @classmethod
    def read(cls, path: str) -> Self:
        """Read a file.

        Raises:
            UserError: It cannot be read.
        """
        place = Path(path).resolve()
        try:
            return cls(place, place.read_bytes())
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from error


def loaded() -> tuple[Source, ...]:
    """The users' files that were imported and still lie there, for another process to import."""
    return tuple(source for source in _sources() if source.path.is_file())


def load_source(source: Source) -> None:
    """Import a user's file, if it is not; what is pickled of it can be unpickled then.

    It is taken as it was where it was read, and need not lie here. What it imports from beside it
    must, at the same path.
    """
    if source not in _sources():
        _module(source, str(source.path))


def _sources() -> list[Source]:
    loaders = [getattr(module, "__loader__", None) for module in sys.modules.values()]
    return [loader.source for loader in loaders if isinstance(loader, _Loader)]


@dataclass(frozen=True)
class _Loader(ExecutionLoader):
    """Imports what was read, wherever that was."""

    source: Source

    def get_source(self, fullname: str) -> str:
        return decode_source(self.source.content)

    def get_filename(self, fullname: str) -> str:
        return str(self.source.path)


def _module(source: Source, name: str) -> ModuleType:
    """Run a file as a module, known to Python as dataclasses and pickles need it."""
    place = source.path
    unique = re.sub(r"\W", "_", f"{place.stem}_{zlib.crc32(bytes(place)):08x}")
    spec = importlib.util.spec_from_file_location(unique, place, loader=_Loader(source))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    if str(place.parent) not in sys.path:
        sys.path.append(str(place.parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever a user's file raises is told in one line
        del sys.modules[spec.name]
        raise UserError(f"{name} fails to import: {explain(error, name=name)}") from error
    return module


def explain(error: BaseException, name: str) -> str:
    """One line: what was raised, and at which line of the file in `name`."""
    text = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
    file = absolute(name).partition(".py")[0] + ".py"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == file]
    return f"{text} (line {lines[-1]})" if lines else text

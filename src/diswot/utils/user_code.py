"""Functions of a user: `file.py:function`, or `package.module:function` of an own package."""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import inspect
import os
import re
import sys
import traceback
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.abc import ExecutionLoader
from importlib.util import decode_source
from inspect import Parameter
from pathlib import Path
from types import ModuleType
from typing import Any, Self, TypeVar

from diswot.errors import UserError, one_line, out_of_memory, unknown

T = TypeVar("T")

PREFIXES = ("subnet", "dense", "detector")  # of names that go on with another name

_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+:[^\W\d]\w*")
# Usual names of parameters for the number of classes and for the side of the images in pixels.
ALIASES = {
    "num_classes": ("num_classes", "classes", "n_classes"),
    "img_size": ("img_size", "image_size", "size"),
}


def is_spec(name: str) -> bool:
    """Say whether a name has the form `file.py:function`, `package.module:function` or `file.py`.

    A module's name needs a dot: `timm:resnet50` is a model of a library.
    """
    return _is_file(name) or _MODULE.fullmatch(name) is not None


def _is_file(name: str) -> bool:
    return name.endswith(".py") or name.rpartition(":")[0].endswith(".py")


def absolute(name: str) -> str:
    """Return a name with an absolute path, which is valid in any working folder.

    A module's name has no path, and is returned unchanged.
    """
    if not _is_file(name) and _MODULE.fullmatch(name):
        return name
    path, colon, function = name.rpartition(":")
    return f"{Path(path).resolve()}{colon}{function}" if path else str(Path(name).resolve())


def rooted(named: T) -> T | str:
    """Return the text of a user's function, or of a folder after `hf:`, with an absolute path.

    The text may follow prefixes, as in `detector:subnet:file.py:function+fcos`. Anything else is
    unchanged: no folder is taken for a network of the same name.
    """
    if not isinstance(named, str):
        return named
    prefix, _, inner = named.partition(":")
    if prefix == "hf" and os.path.isdir(inner):
        return f"hf:{absolute(inner)}"
    if prefix in PREFIXES and inner:
        return f"{prefix}:{rooted(inner)}"
    return absolute(named) if is_spec(named) else named


def short_name(name: str) -> str:
    """Return the text of a user's function without its folder, for a table or a legend."""
    return name.rpartition("/")[2] if is_spec(name) else name


def name_of(named: object) -> str:
    """Return a text as it is, the name of a function, and the class of another object."""
    if isinstance(named, str):
        return named
    if isinstance(named, partial):
        return name_of(named.func)
    return str(getattr(named, "__name__", type(named).__name__))


def needed(function: Callable[..., Any]) -> list[Parameter]:
    """Return the parameters that a caller must give by place: those without a default."""
    by_place = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a function of C without a signature
        return []
    return [p for p in parameters if p.kind in by_place and p.default is Parameter.empty]


def load(name: str, **options: Any) -> Callable[..., Any]:
    """Import a user's function as `find` does, with the options bound as by `bind`.

    An option that is None leaves the function its own default.
    """
    return bind(find(name), **{key: each for key, each in options.items() if each is not None})


def find(name: str, kinds: tuple[type, ...] = ()) -> Any:
    """Import `file.py` or `package.module` and return its `function`.

    The import runs the code of the file, unless the file was imported before and has not changed.
    The file may import modules of the same folder, which come first for its own imports, also
    where a library has the same name, and for these alone. A package is installed or in the
    working folder. Objects of some other kinds may be named in place of a function.

    Raises:
        UserError: The file, the module or the function does not exist, or the import fails.
    """
    if name.endswith(".py"):
        raise UserError(f"name a function in {name}, as {name}:function")
    path, _, attribute = name.rpartition(":")
    functions = members(path, kinds)
    if attribute not in functions:
        raise unknown(f"function in {path}", attribute, functions)
    return functions[attribute]


def members(path: str, kinds: tuple[type, ...] = ()) -> dict[str, Any]:
    """Import a file or a module and return its functions, classes and other callables by name.

    Objects of some other kinds are returned, too.

    Raises:
        UserError: There is no such file or module, or the import fails.
    """
    module = _home(path)
    return {k: v for k, v in vars(module).items() if callable(v) or isinstance(v, kinds)}


def own_members(path: str, kinds: tuple[type, ...] = ()) -> dict[str, Any]:
    """Return the `members` that a file or a module defines itself, without private ones."""
    module = _home(path)
    return {
        name: value
        for name, value in members(path, kinds).items()
        if not name.startswith("_")
        and (isinstance(value, kinds) or getattr(value, "__module__", "") == module.__name__)
    }


def _home(path: str) -> ModuleType:
    return _file_module(path) if path.endswith(".py") else _named_module(path)


def _file_module(path: str) -> ModuleType:
    """Return the module of a file, which on another machine may have been imported already."""
    known = {file.path: file for file in _imported()}
    place = Path(path).resolve()
    if not Path(path).is_file() and place not in known:
        raise UserError(f"no such file: {path}")
    file = UserFile.read(path) if Path(path).is_file() else known[place]
    if known.get(place) == file:
        return sys.modules[_unique(place)]
    return _module(file, path)


def _named_module(name: str) -> ModuleType:
    """Import a module of a package that is installed or in the working folder."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # a user's module may raise anything
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{name}.".startswith(f"{missing}."):
            raise UserError(
                f"no module {name}: install its package, or run in the folder that holds it"
            ) from error
        raise UserError(f"{name} fails to import: {one_line(error)}") from error


def bind(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Return a function with those options bound for which it has a parameter.

    `num_classes` and `img_size` are bound to a parameter of any of their usual names. A function
    that takes `**options` is given `num_classes`. A parameter whose default is a text or anything
    else but a number or None means something else, and keeps its default.
    """
    parameters = inspect.signature(function).parameters
    bound: dict[str, Any] = {}
    for option, value in options.items():
        names = ALIASES.get(option, (option,))
        bound |= {n: value for n in names if n in parameters and _takes(parameters[n], option)}
    passes_on = any(each.kind is Parameter.VAR_KEYWORD for each in parameters.values())
    if passes_on and "num_classes" in options and not set(ALIASES["num_classes"]) & set(parameters):
        bound["num_classes"] = options["num_classes"]
    return partial(function, **bound)


def _takes(parameter: Parameter, option: str) -> bool:
    """Say whether a parameter of the right name can take an option by keyword."""
    if parameter.kind not in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY):
        return False
    default = None if parameter.default is Parameter.empty else parameter.default
    return option not in ALIASES or default is None or isinstance(default, int)


@dataclass(frozen=True)
class UserFile:
    """A user's file at the time of reading: its absolute path, and its bytes."""

    path: Path
    content: bytes

    @classmethod
    def read(cls, path: str) -> Self:
        """Read a file.

        Raises:
            UserError: The file cannot be read.
        """
        place = Path(path).resolve()
        try:
            return cls(place, place.read_bytes())
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from error


def loaded() -> tuple[UserFile, ...]:
    """Return the imported files that still exist, for another process to import."""
    return tuple(file for file in _imported() if file.path.is_file())


def load_file(file: UserFile) -> None:
    """Import a file that another process read, so that its objects can be unpickled.

    The content is that at the time of reading; the file need not exist on this machine. Modules
    that it imports from its folder must exist at the same path.
    """
    if file not in _imported():
        _module(file, str(file.path))


def _imported() -> list[UserFile]:
    loaders = [getattr(module, "__loader__", None) for module in sys.modules.values()]
    return [loader.file for loader in loaders if isinstance(loader, _Loader)]


@dataclass(frozen=True)
class _Loader(ExecutionLoader):
    """Importer of a file's content, on any machine."""

    file: UserFile

    def get_source(self, fullname: str) -> str:
        return decode_source(self.file.content)

    def get_filename(self, fullname: str) -> str:
        return str(self.file.path)


def _module(file: UserFile, name: str) -> ModuleType:
    """Run a file as a module of `sys.modules`, where dataclasses and pickle look it up."""
    place = file.path
    inside = [str(place.parent)] if place.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(
        _unique(place), place, loader=_Loader(file), submodule_search_locations=inside
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    if str(place.parent) not in sys.path:
        sys.path.append(str(place.parent))
    _first_from(module, place.parent)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a user's file may raise anything
        del sys.modules[spec.name]
        raise UserError(f"{name} fails to import: {explain(error, name=name)}") from error
    return module


def _unique(place: Path) -> str:
    """Return the name of a file's module, which no library has."""
    stem = place.parent.name if place.name == "__init__.py" else place.stem
    return re.sub(r"\W", "_", f"{stem}_{zlib.crc32(bytes(place)):08x}")


def _first_from(module: ModuleType, folder: Path) -> None:
    """Give a module imports of its own, which look into a folder first."""
    own = partial(_import, folder)
    vars(module)["__builtins__"] = {**vars(builtins), "__import__": own}


def _import(
    folder: Path,
    name: str,
    space: Any = None,
    local: Any = None,
    wanted: Sequence[str] | None = (),
    level: int = 0,
) -> ModuleType:
    """Do an import statement of a user's file, as `__import__` does."""
    top, dot, rest = name.partition(".")
    own = None if level else _beside(folder, top)
    if own is not None:
        if _is_taken(top, own):
            top = _unique(own)
            if top not in sys.modules:
                _module(UserFile.read(str(own)), str(own))
        elif top not in sys.modules:
            _run_beside(top, folder)
    return builtins.__import__(f"{top}{dot}{rest}", space, local, wanted or (), level)


def _beside(folder: Path, name: str) -> Path | None:
    """Return the file of a module or package in a folder; None if there is none."""
    paths = folder / f"{name}.py", folder / name / "__init__.py"
    return next((path for path in paths if path.is_file()), None)


def _is_taken(name: str, own: Path) -> bool:
    """Say whether a name of a module is that of another module than a file's."""
    module = sys.modules.get(name)
    if module is None:
        spec = importlib.util.find_spec(name)
        return spec is not None and spec.origin != str(own)
    return getattr(module, "__file__", None) != str(own)


def _run_beside(name: str, folder: Path) -> None:
    """Import a module of the folder under its own name; its imports look there first, too."""
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    _first_from(module, folder)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def call(name: str, function: Callable[..., Any], *args: Any, **settings: Any) -> Any:
    """Call a user's function, whose errors become one line; a lack of memory stays what it is."""
    try:
        return function(*args, **settings)
    except (Exception, SystemExit) as error:  # a user's function may raise anything
        if isinstance(error, UserError) or out_of_memory(error):
            raise
        raise UserError(f"{name} fails: {explain(error, name)}") from error


def explain(error: BaseException, name: str) -> str:
    """Describe an exception in one line, with the line number in the file of `name`."""
    text = one_line(error).removesuffix(":")
    file = _file_of(name)
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == file]
    return f"{text} (line {lines[-1]})" if lines else text


def _file_of(name: str) -> str | None:
    """Return the path of the file of a user's function."""
    if _is_file(name):
        return absolute(name).partition(".py")[0] + ".py"
    return getattr(sys.modules.get(name.partition(":")[0]), "__file__", None)

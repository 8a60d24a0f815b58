"""Functions of a user's own file."""

from __future__ import annotations

import inspect
import pickle
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from diswot.errors import UserError
from diswot.utils import user_code


def write(folder: Path, text: str, name: str = "mine.py") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nets.py:f", True),
        ("a/b c/nets.py:f", True),
        ("nets.py", True),
        ("nets.py:", True),
        ("nets:f", False),
        ("package.nets:f", True),
        ("a.b.c:f", True),
        ("package.nets:0.5", False),
        ("timm:mobilenetv3_small_050.lamb_in1k", False),
        ("subnet:package.nets:f", False),
        ("package.nets", False),
        ("resnet20", False),
        ("", False),
        (":", False),
        ("C:\\nets.py:f", True),
    ],
)
def test_is_spec(name: str, expected: bool) -> None:
    assert user_code.is_spec(name) is expected


def test_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert user_code.absolute("nets.py:f") == f"{tmp_path.resolve() / 'nets.py'}:f"
    assert user_code.absolute("nets.py") == str(tmp_path.resolve() / "nets.py")
    assert user_code.absolute("folder") == str(tmp_path.resolve() / "folder")
    assert user_code.absolute("package.nets:f") == "package.nets:f"
    assert user_code.rooted("nets.py:f") == f"{tmp_path.resolve() / 'nets.py'}:f"
    assert [user_code.rooted(each) for each in ("kd", "package.nets:f", 3)] == [
        "kd",
        "package.nets:f",
        3,
    ]


def test_names_to_show() -> None:
    assert user_code.short_name("/a/b/nets.py:f") == "nets.py:f"
    assert [user_code.short_name(each) for each in ("kd", "a.b:f", "runs/x")] == [
        "kd",
        "a.b:f",
        "runs/x",
    ]
    assert user_code.name_of("kd") == "kd"
    assert user_code.name_of(partial(test_names_to_show)) == "test_names_to_show"
    assert user_code.name_of(Path) == "Path" and user_code.name_of(3) == "int"


@pytest.mark.parametrize(
    ("parameters", "needed"),
    [("a, b", ["a", "b"]), ("a, /, b=1, *c, d, **e", ["a"]), ("", []), ("*, a", [])],
)
def test_parameters_that_must_be_given(parameters: str, needed: list[str]) -> None:
    names: dict[str, Any] = {}
    exec(f"def f({parameters}): pass", names)
    assert [each.name for each in user_code.needed(names["f"])] == needed


def test_a_module_of_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "a_package_of_mine"
    folder.mkdir()
    write(folder, "from .inner import VALUE\ndef f(classes): return classes, VALUE\n", "nets.py")
    write(folder, "VALUE = 5\n", "inner.py")
    write(folder, "import nowhere_to_be_found\n", "broken.py")
    assert user_code.load("a_package_of_mine.nets:f", num_classes=3)() == (3, 5)
    with pytest.raises(UserError, match=r"unknown function in a_package_of_mine.nets 'g'"):
        user_code.load("a_package_of_mine.nets:g")
    with pytest.raises(UserError, match=r"^no module a_package_of_mine.nest: install its package"):
        user_code.load("a_package_of_mine.nest:f")
    with pytest.raises(UserError, match="broken fails to import: ModuleNotFoundError: No module"):
        user_code.load("a_package_of_mine.broken:f")


def test_two_functions_of_one_file_can_both_be_pickled(tmp_path: Path) -> None:
    place = write(tmp_path, "CALLS = []\ndef f(): return CALLS\ndef g(): return CALLS\n")
    first, second = user_code.find(f"{place}:f"), user_code.find(f"{place}:g")
    assert first() is second()
    assert pickle.loads(pickle.dumps(first)) is first
    assert user_code.own_members(place) == {"f": first, "g": second}


def test_binds_the_options_it_takes(tmp_path: Path) -> None:
    place = write(tmp_path, "def f(x, classes=1): return x, classes\ndef g(x): return x\n")
    assert user_code.load(f"{place}:f", num_classes=7, more=2)(3) == (3, 7)
    assert user_code.load(f"{place}:g", num_classes=7)(3) == 3


@pytest.mark.parametrize(
    ("parameters", "bound"),
    [
        ("num_classes, img_size", {"num_classes": 7, "img_size": 32}),
        ("classes, image_size", {"classes": 7, "image_size": 32}),
        ("n_classes, size=None", {"n_classes": 7, "size": 32}),
        ("*, num_classes=1000", {"num_classes": 7}),
        ("x=1, **options", {"num_classes": 7}),
        ("classes=10, **options", {"classes": 7}),
        ("size='small', classes=('a', 'b')", {}),
        ("**size", {"num_classes": 7}),
        ("*classes", {}),
        ("num_classes, /", {}),
        ("depth=3", {}),
    ],
)
def test_usual_names_of_parameters(parameters: str, bound: dict[str, int]) -> None:
    names: dict[str, Any] = {}
    exec(f"def f({parameters}): pass", names)

    assert user_code.bind(names["f"], num_classes=7, img_size=32).keywords == bound


def test_dataclasses_and_neighbours_work(tmp_path: Path) -> None:
    write(tmp_path, "VALUE = 5\n", "a_neighbour_of_mine.py")
    place = write(
        tmp_path,
        """
from __future__ import annotations
import pickle
from dataclasses import dataclass
from typing import ClassVar
import a_neighbour_of_mine

@dataclass
class Config:
    width: int = a_neighbour_of_mine.VALUE
    names: ClassVar[list] = []

def f():
    from a_neighbour_of_mine import VALUE
    return pickle.loads(pickle.dumps(Config())).width + VALUE
""",
    )
    before = list(sys.path)
    try:
        assert user_code.load(f"{place}:f")() == 10
    finally:
        sys.path[:] = before


def test_two_files_of_one_name(tmp_path: Path) -> None:
    places = []
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        places.append(write(tmp_path / str(number), f"def f(): return {number}\n", "torch.py"))
    torch = sys.modules.get("torch")
    assert [user_code.load(f"{place}:f")() for place in places] == [1, 2]
    assert sys.modules.get("torch") is torch


def test_an_edited_file_is_read_anew(tmp_path: Path) -> None:
    place = write(tmp_path, "def f(): return 1\n")
    assert user_code.load(f"{place}:f")() == 1
    write(tmp_path, "def f(): return 'two'\n")
    assert user_code.load(f"{place}:f")() == "two"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nowhere_to_be_found", "fails to import: ModuleNotFoundError: No module named"),
        ("x = 1\n\ny = 1 / 0", r"fails to import: ZeroDivisionError: division by zero \(line 3\)"),
        ("def f(:", "fails to import: SyntaxError: invalid syntax"),
        ("import sys\nsys.exit(4)", r"fails to import: SystemExit: 4 \(line 2\)"),
        ("raise ValueError", r"fails to import: ValueError \(line 1\)"),
        ("raise ValueError('a\\nb')", r"ValueError: a b \(line 1\)"),
    ],
)
def test_failing_import(tmp_path: Path, text: str, message: str) -> None:
    place, before = write(tmp_path, text), set(sys.modules)
    with pytest.raises(UserError, match=message) as caught:
        user_code.load(f"{place}:f")
    assert "\n" not in str(caught.value)
    assert set(sys.modules) == before


def test_no_text(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_bytes(b"\x00\xff\xfe")
    with pytest.raises(UserError, match="fails to import"):
        user_code.load(f"{tmp_path / 'mine.py'}:f")


def test_nearest_function(tmp_path: Path) -> None:
    place = write(tmp_path, "space = 3\ndef my_space(trial): pass\n")
    with pytest.raises(UserError, match=r"unknown function in .* 'my_spac'; did you mean my_space"):
        user_code.load(f"{place}:my_spac")
    with pytest.raises(UserError, match=r"unknown function in .* 'space'; did you mean my_space"):
        user_code.load(f"{place}:space")


def test_no_file_and_no_function(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such file: .*mine.py"):
        user_code.load(f"{tmp_path / 'mine.py'}:f")
    with pytest.raises(UserError, match=r"name a function in mine.py, as mine.py:function"):
        user_code.load("mine.py")


def test_loaded_names_files_that_lie_there(tmp_path: Path) -> None:
    place = write(tmp_path, "def f(): pass\n")
    user_code.load(f"{place}:f")
    assert place in [str(file.path) for file in user_code.loaded()]
    Path(place).unlink()
    assert place not in [str(file.path) for file in user_code.loaded()]


def test_a_file_is_imported_as_it_was_where_it_was_read(tmp_path: Path) -> None:
    """So it is on a machine where there is no such file."""
    place = write(tmp_path, "class Mine: pass\ndef f(): return 'ours'\n")
    f = user_code.load(f"{place}:f")
    (file,) = (file for file in user_code.loaded() if str(file.path) == place)
    pickled = pickle.dumps(f.func)
    del sys.modules[f.func.__module__]
    Path(place).unlink()

    user_code.load_file(file)
    user_code.load_file(file)

    there = pickle.loads(pickled)
    assert there() == "ours" and "return 'ours'" in inspect.getsource(there)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^cannot read .*: Is a directory$"):
        user_code.UserFile.read(str(tmp_path))


def test_a_module_beside_the_file_comes_first_for_its_imports_alone(tmp_path: Path) -> None:
    """`colorsys` is a module of Python, which nothing here has changed afterwards."""
    import colorsys

    write(tmp_path, "NAME = 'beside'", "colorsys.py")
    write(tmp_path, "import colorsys\nNAME = colorsys.NAME", "beside_helper.py")
    (tmp_path / "wave").mkdir()
    write(tmp_path / "wave", "from .inner import NAME", "__init__.py")
    write(tmp_path / "wave", "NAME = 'package'", "inner.py")
    text = """
import colorsys, beside_helper
import wave.inner
def now(): return colorsys.NAME, beside_helper.NAME
def late():
    import colorsys as again
    from wave import inner
    return again.NAME, inner.NAME, wave.NAME
"""
    name = write(tmp_path, text)

    assert user_code.load(f"{name}:now")() == ("beside", "beside")
    assert user_code.load(f"{name}:late")() == ("beside", "package", "package")
    import wave

    assert sys.modules["colorsys"] is colorsys and not hasattr(colorsys, "NAME")
    assert hasattr(wave, "Wave_read")


@pytest.mark.parametrize(
    ("head", "bound"),
    [
        ("trial, num_classes=1000", {"num_classes": 10}),
        ("trial, classes", {"classes": 10}),
        ("trial, n_classes=None", {"n_classes": 10}),
        ("trial, **options", {"num_classes": 10}),
        ("trial, classes=5, **options", {"classes": 10}),
    ],
)
def test_the_number_of_classes_by_its_usual_names(
    tmp_path: Path, head: str, bound: dict[str, int]
) -> None:
    name = write(tmp_path, f"def f({head}): pass")

    assert user_code.load(f"{name}:f", num_classes=10, img_size=8).keywords == bound

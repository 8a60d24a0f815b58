"""Packages import only from the rows above them; DESIGN of the house."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import diswot

ROOT = Path(diswot.__file__).parent

# A package may import from every row above its own. `errors` is open to all.
ROWS = (
    ("errors",),
    ("utils",),
    ("observation", "costs", "storage", "executors", "data"),
    ("knowledge", "models", "tasks"),
    ("spaces", "proxies"),
    ("nas", "ranking", "training"),
    ("runs",),
    ("reports", "exporters"),
    ("cli",),
    ("__main__",),
)
ROW = {package: number for number, row in enumerate(ROWS) for package in row}

# The only imports between packages of one row.
ALLOWED = {
    ("diswot.training.verified", "diswot.nas.result"),
    ("diswot.training.verify", "diswot.nas.result"),
}

LOOSE = {"__init__", "__main__", "errors"}  # modules at the top level


def name_of(path: Path) -> str:
    """Return `diswot.knowledge` for `knowledge/__init__.py`."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}
MODULES = [name for name in FILES if name != "diswot"]


def imports(name: str) -> Iterator[str]:
    """Yield the modules of this package that a module imports anywhere, types included."""
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in FILES)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports by a relative name"
            for alias in node.names:
                nearest = f"{node.module}.{alias.name}"
                yield from (
                    n for n in (nearest if nearest in FILES else node.module,) if n in FILES
                )


def package(name: str) -> str:
    """Return the package of the top level that a module is in."""
    return name.split(".")[1]


def offends(name: str, other: str) -> bool:
    """Whether a module must not import another one."""
    if other == "diswot" or package(other) == package(name) or (name, other) in ALLOWED:
        return False
    return ROW[package(other)] >= ROW[package(name)]


def test_every_package_has_a_row_and_no_module_lies_loose() -> None:
    loose = {path.stem for path in ROOT.glob("*.py")} - LOOSE
    homeless = {package(name) for name in MODULES} - ROW.keys()

    assert not loose and not homeless


def test_packages_import_only_from_the_rows_above() -> None:
    wrong = [
        f"{name} imports {other}"
        for name in MODULES
        for other in sorted(set(imports(name)))
        if offends(name, other)
    ]

    assert not wrong, "\n".join(wrong)


def test_every_allowed_exception_is_used() -> None:
    assert all(other in set(imports(name)) for name, other in ALLOWED)


def test_no_package_is_named_as_a_public_name() -> None:
    assert not ROW.keys() & set(diswot.__all__)


def test_modules_do_not_import_each_other() -> None:
    left = {name: set(imports(name)) - {"diswot", name} for name in MODULES}
    while ready := [name for name, needed in left.items() if not needed & left.keys()]:
        for name in ready:
            del left[name]

    assert not left, f"these import each other: {sorted(left)}"


def types(name: str) -> Iterator[str]:
    """Yield the public classes and type aliases that a module defines; constants are no aliases."""
    for node in ast.parse(FILES[name].read_text()).body:
        names = [node.name] if isinstance(node, ast.ClassDef) else []
        if isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        yield from (each for each in names if re.match("[A-Z].*[a-z]", each))


def test_no_public_type_is_defined_in_two_modules() -> None:
    homes: dict[str, list[str]] = {}
    for name in FILES:
        for each in types(name):
            homes.setdefault(each, []).append(name)
    twice = [f"{each}: {', '.join(found)}" for each, found in homes.items() if len(found) > 1]

    assert not twice, "\n".join(twice)


def test_types_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "some.py"
    path.write_text(
        "class Net: ...\nShape = tuple[int]\nBATCH, T = 5, 6\n_Own = int\nclass _P: ...\n"
    )
    monkeypatch.setitem(FILES, "diswot.models.some", path)

    assert list(types("diswot.models.some")) == ["Net", "Shape"]


def foreign(name: str) -> set[str]:
    """Return the top-level packages that a module imports, this one left out."""
    tree = ast.parse(FILES[name].read_text())
    froms = {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    plain = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    return {module.split(".")[0] for module in froms | plain} - {"__future__", "diswot"}


def test_the_pure_maths_imports_only_torch() -> None:
    assert foreign("diswot.observation.functional") <= {"torch", "collections"}


def test_packages_without_science_import_none() -> None:
    """Observing knows no study, and executing no network."""
    banned = {"observation": {"optuna", "timm"}, "utils": {"optuna"}, "executors": {"optuna"}}
    wrong = [
        f"{name} imports {', '.join(sorted(found))}"
        for name in MODULES
        if (found := foreign(name) & banned.get(package(name), set()))
    ]

    assert not wrong, "\n".join(wrong)


def test_the_package_imports_nothing_of_itself() -> None:
    """Its names are imported when first used."""
    assert not set(imports("diswot"))


def test_offenders_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "some.py"
    path.write_text(
        "import os, diswot.utils.files\n"
        "from diswot import spaces\n"
        "def late():\n"
        "    from diswot.spaces import registry, trials\n"
        "if TYPE_CHECKING:\n"
        "    from diswot.nas.api import search\n"
    )
    monkeypatch.setitem(FILES, "diswot.models.some", path)

    found = sorted(imports("diswot.models.some"))
    assert found == [
        "diswot.nas.api",
        "diswot.spaces",
        "diswot.spaces.registry",
        "diswot.spaces.trials",
        "diswot.utils.files",
    ]
    assert [offends("diswot.models.some", other) for other in found] == [True] * 4 + [False]
    assert not offends("diswot.training.verify", "diswot.nas.result")
    assert offends("diswot.training.verify", "diswot.nas.api")

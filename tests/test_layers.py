"""Data flows to the right only: no module imports one further right in the order below."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import diswot

ROOT = Path(diswot.__file__).parent

ORDER = (
    # what everything may use
    *("errors", "layout", "extras", "files", "userfile", "facts", "lifetime", "devices", "workers"),
    *("head", "cluster"),
    # what one forward pass shows
    *("similarity", "trace", "cam", "observe"),
    # what a teacher knows and a student does not
    *("knowledge", "losses", "schedules", "recipe", "recipes"),
    # networks and images
    *("initialise", "budget", "spaces", "tables", "teachers", "data"),
    # score
    "proxies",
    # search
    *(
        "replay",
        "journal",
        "ends",
        "elapsed",
        "evolution",
        "firsts",
        "samplers",
        "storage",
        "pareto",
        "prefix",
        "examiner",
        "presence",
        "loop",
        "crew",
        "found",
        "search",
    ),
    # train
    *("checkpoint", "evaluate", "processes", "energy", "average", "board"),
    *("objective", "distill", "verify"),
    # tell
    *("rank", "report", "plots", "export"),
    *("console", "cli", "__main__"),
)


def name_of(path: Path) -> str:
    """`diswot.knowledge` of `knowledge/__init__.py`."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}


def imports(name: str) -> Iterator[str]:
    """The modules of this package that a module imports, wherever in its text, types included."""
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


def layer(name: str) -> int:
    """Place of a module, or of the package that it is in."""
    return ORDER.index(name.split(".")[1])


MODULES = [name for name in FILES if name != "diswot"]


@pytest.mark.parametrize("name", MODULES)
def test_module_has_its_place(name: str) -> None:
    assert name.split(".")[1] in ORDER


@pytest.mark.parametrize("name", MODULES)
def test_nothing_is_imported_from_further_right(name: str) -> None:
    for other in imports(name):
        assert other == "diswot" or layer(other) <= layer(name), f"{name} imports {other}"


def test_no_module_needs_itself() -> None:
    """Within a package, too, there is an order."""
    left = {name: set(imports(name)) - {"diswot", name} for name in MODULES}
    while ready := [name for name, needed in left.items() if not needed & left.keys()]:
        for name in ready:
            del left[name]

    assert not left, f"these import each other: {sorted(left)}"


def test_the_maths_imports_only_torch() -> None:
    tree = ast.parse(FILES["diswot.similarity"].read_text())
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {
        a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names
    }

    assert {module.split(".")[0] for module in modules} - {"__future__", "collections"} == {"torch"}


def test_the_package_imports_nothing_of_itself() -> None:
    """Its names are imported when first used."""
    assert not set(imports("diswot"))


def test_imports_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "some.py"
    path.write_text(
        "import os, diswot.files\n"
        "from diswot import spaces\n"
        "def late():\n"
        "    from diswot.spaces import get, choices\n"
        "if TYPE_CHECKING:\n"
        "    from diswot.search import search\n"
    )
    monkeypatch.setitem(FILES, "diswot.some", path)

    assert sorted(imports("diswot.some")) == [
        "diswot.files",
        "diswot.search",
        "diswot.spaces",
        "diswot.spaces",
        "diswot.spaces.choices",
    ]

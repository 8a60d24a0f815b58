"""What the package imports is what it declares, and private names stand in one place each."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import diswot

ROOT = Path(diswot.__file__).parent
PROJECT = tomllib.loads((ROOT.parent.parent / "pyproject.toml").read_text())["project"]
TOOLS = {"dev", "docs", "fuzz"}  # extras for who works on the project

# Names under which distributions are imported, where the two differ.
DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml"}

# What other libraries import for us.
INDIRECT = {
    "onnx": "torch.onnx",
    "onnxscript": "torch.onnx",
    "psycopg": "SQLAlchemy, for PostgreSQL",
    "tensorboard": "torch.utils.tensorboard",
}


def names(requirements: list[str]) -> set[str]:
    """Return the distributions that a list of requirements names."""
    return {re.split(r"[^\w.-]", text)[0].lower() for text in requirements}


REQUIRED = names(PROJECT["dependencies"])
OPTIONAL = {
    name
    for extra, requirements in PROJECT["optional-dependencies"].items()
    if extra not in TOOLS
    for name in names(requirements)
}


def modules(node: ast.AST) -> list[str]:
    """Return the modules that a statement or a call of `imported` imports."""
    match node:
        case ast.Import(names=aliases):
            return [alias.name for alias in aliases]
        case ast.ImportFrom(module=str(module)):
            return [module]
        case ast.Call(func=ast.Name(id="imported") | ast.Attribute(attr="imported")):
            return [a.value for a in node.args[:1] if isinstance(a, ast.Constant)]
    return []


def distributions(nodes: Iterator[ast.AST]) -> set[str]:
    """Return the distributions that some nodes import, the standard library left out."""
    tops = {module.partition(".")[0] for node in nodes for module in modules(node)}
    foreign = tops - sys.stdlib_module_names - {"diswot"}
    return {DISTRIBUTIONS.get(top, top).lower().replace("_", "-") for top in foreign}


def at_once(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield the nodes of a module that run when it is imported."""
    inside = {id(n) for d in ast.walk(tree) if _is_late(d) for n in ast.walk(d) if n is not d}
    return (node for node in ast.walk(tree) if id(node) not in inside)


def _is_late(node: ast.AST) -> bool:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return True
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


TREES = {path: ast.parse(path.read_text()) for path in sorted(ROOT.rglob("*.py"))}


def test_every_import_is_declared() -> None:
    undeclared = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path, tree in TREES.items()
        for name in distributions(ast.walk(tree)) - REQUIRED - OPTIONAL
    }

    assert not undeclared, "\n".join(sorted(undeclared))


def test_everything_declared_is_imported() -> None:
    imported = {name for tree in TREES.values() for name in distributions(ast.walk(tree))}

    assert not (REQUIRED | OPTIONAL) - imported - INDIRECT.keys()


def test_what_an_extra_brings_is_imported_late() -> None:
    early = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path, tree in TREES.items()
        for name in distributions(at_once(tree)) - REQUIRED
    }

    assert not early, "\n".join(sorted(early))


def test_imports_are_found() -> None:
    tree = ast.parse(
        "import os, numpy.linalg\n"
        "from sklearn import datasets\n"
        "if TYPE_CHECKING:\n"
        "    import jinja2\n"
        "class Some:\n"
        "    import rich\n"
        "    def late(self):\n"
        "        from PIL import Image\n"
        "        return imported('onnx.checker', '--x', 'onnx'), lib.imported(name)\n"
    )

    assert distributions(at_once(tree)) == {"numpy", "scikit-learn", "rich"}
    assert distributions(ast.walk(tree)) == {
        *("numpy", "scikit-learn", "rich", "pillow", "onnx", "jinja2"),
    }
    assert names(["a-b[c]>=1", "d ; python_version < '4'"]) == {"a-b", "d"}


# Private names of Optuna, torch and Ray, which only these modules may use.
COMPAT = {"storage/compat.py", "utils/compat.py"}
PRIVATE = re.compile(
    r"(from|import) (optuna|torch|ray)[\w.]*\._|(from|import) (optuna|torch|ray)\b[^\n]* _[a-zA-Z]"
    r"|\b(optuna|torch|ray)(\.\w+)*\._[a-zA-Z]|\._(storage|study_id|trial_id|suggest|contains)\b"
)


def test_private_names_of_libraries_stand_in_one_place() -> None:
    found = [
        f"{name}: {line.strip()}"
        for path in TREES
        if (name := path.relative_to(ROOT).as_posix()) not in COMPAT
        for line in path.read_text().splitlines()
        if PRIVATE.search(line)
    ]

    assert not found, "\n".join(found)


def test_types_are_shipped() -> None:
    assert files("diswot").joinpath("py.typed").is_file()

"""What the package imports is what it declares, and private names stand in one place each."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import pytest

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


# Private names of Optuna, torch, Ray and timm, which only these modules may use.
COMPAT = {"storage/compat.py", "utils/compat.py"}
LIBRARIES = r"(optuna|torch|ray|timm)"
PRIVATE = re.compile(
    rf"(from|import) {LIBRARIES}[\w.]*\._|(from|import) {LIBRARIES}\b[^\n]* _[a-zA-Z]"
    rf"|\b{LIBRARIES}(\.\w+)*\._[a-zA-Z]|\baten\._[a-zA-Z]"
    r"|\._(storage|study_id|trial_id|suggest|contains)\b"
    r"|\b_(version|modules|parameters|buffers|orig_mod|forward_(pre_)?hooks)\b"
    r"|\b_(qualified_op_name|should_skip_dynamo)\b"
)


def test_private_names_of_libraries_stand_in_one_place() -> None:
    found = [
        f"{name}:{number}: {line.strip()}"
        for path in TREES
        if (name := path.relative_to(ROOT).as_posix()) not in COMPAT
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if PRIVATE.search(line)
    ]

    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "line",
    [
        "from timm.models._builder import build_model_with_cfg",
        "from torch import nn, _assert",
        "torch.ops.aten._cudnn_rnn",
        "aten._cudnn_rnn: rnn,",
        "study._storage",
        "tensor._version != before",
        'vars(module)["_buffers"]',
        'module._modules.get("head")',
        "def _should_skip_dynamo(cls) -> bool:",
    ],
)
def test_private_names_are_found(line: str) -> None:
    assert PRIVATE.search(line)


@pytest.mark.parametrize("line", ["diswot.__version__", "self._buffer", "_modules_of(network)"])
def test_names_of_our_own_are_allowed(line: str) -> None:
    assert not PRIVATE.search(line)


def test_types_are_shipped() -> None:
    assert files("diswot").joinpath("py.typed").is_file()


def lacks(module: str, name: str) -> bool:
    """Whether a module has neither an attribute nor a module of a name."""
    found = import_module(module)
    package = hasattr(found, "__path__")
    return not hasattr(found, name) and not (package and find_spec(f"{module}.{name}"))


def test_benchmarks_and_examples_import_what_the_package_has() -> None:
    assert lacks("diswot.errors", "nothing")
    assert lacks("diswot.nas", "nothing")
    assert not lacks("diswot.nas", "api")
    root = ROOT.parent.parent
    missing = [
        f"{path.name}:{node.lineno}: {node.module}.{each.name}"
        for path in sorted([*root.glob("benchmarks/*.py"), *root.glob("examples/*.py")])
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("diswot")
        for each in node.names
        if lacks(node.module, each.name)
    ]
    assert missing == []

"""The package in numbers: lines of modules and functions, and docstrings.

    python benchmarks/design.py

That no module imports one further right is tested, in tests/test_layers.py.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, median

import diswot
from diswot.cli import console

ROOT = Path(diswot.__file__).parent
LARGEST = 8  # rows shown of each table
Function = ast.FunctionDef | ast.AsyncFunctionDef


def body(node: Function) -> int:
    """Lines of a function below its head and docstring."""
    last = node.end_lineno or node.lineno
    first = node.body[0]
    told = ast.get_docstring(node) is not None
    return last - (first.end_lineno or 0) if told else last - first.lineno + 1


def public(tree: ast.Module) -> Iterator[ast.Module | ast.ClassDef | Function]:
    """The module, and its public classes, methods and functions; nothing within a function."""
    yield tree
    found: list[ast.stmt] = list(tree.body)
    for node in found:
        if isinstance(node, ast.ClassDef | Function) and not node.name.startswith("_"):
            yield node
            found += node.body if isinstance(node, ast.ClassDef) else []


def main() -> None:
    """Measure, and print."""
    trees = {p: ast.parse(p.read_text()) for p in sorted(ROOT.rglob("*.py"))}
    lines = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in trees}
    bodies = {
        f"{path.relative_to(ROOT)}: {node.name}": body(node)
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, Function)
    }
    told = [ast.get_docstring(node) is not None for tree in trees.values() for node in public(tree)]
    for title, sizes in (("modules", lines), ("functions", bodies)):
        facts = f"{len(sizes)} {title}, mean {mean(sizes.values()):.1f} lines"
        rows = sorted(sizes.items(), key=lambda item: -item[1])[:LARGEST]
        console.table(
            f"{facts}, median {median(sizes.values()):.0f}",
            ["largest", "lines"],
            [[name, str(size)] for name, size in rows],
        )
    print(f"{sum(told)} of {len(told)} public modules, classes and functions have a docstring")


if __name__ == "__main__":
    main()

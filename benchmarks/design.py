"""The package in numbers: packages, imports, lines, parameters and docstrings.

    python benchmarks/design.py

That no module imports one further right is tested, in tests/test_layers.py.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import mean, median

import diswot
from diswot.cli import console

ROOT = Path(diswot.__file__).parent
TESTS = ROOT.parent.parent / "tests"
LARGEST = 8  # rows shown of each table
Function = ast.FunctionDef | ast.AsyncFunctionDef


def body(node: Function) -> int:
    """Lines of a function below its head and docstring."""
    last = node.end_lineno or node.lineno
    first = node.body[0]
    documented = ast.get_docstring(node) is not None
    return last - (first.end_lineno or 0) if documented else last - first.lineno + 1


def public(tree: ast.Module) -> Iterator[ast.Module | ast.ClassDef | Function]:
    """The module, and its public classes, methods and functions; nothing within a function."""
    yield tree
    found: list[ast.stmt] = list(tree.body)
    for node in found:
        if isinstance(node, ast.ClassDef | Function) and not node.name.startswith("_"):
            yield node
            found += node.body if isinstance(node, ast.ClassDef) else []


def parameters(node: Function) -> int:
    """Parameters of a function, `self` and `cls` left out."""
    given = node.args
    named = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len(set(named) - {"self", "cls"}) + bool(given.vararg) + bool(given.kwarg)


def arrows(trees: Mapping[Path, ast.Module], packages: set[str]) -> set[tuple[str, str]]:
    """Pairs of packages, the first of which imports from the second."""
    found = set()
    for path, tree in trees.items():
        own = path.relative_to(ROOT).parts[0]
        for node in ast.walk(tree):
            for name in node.names if isinstance(node, ast.ImportFrom) else ():
                root, other, *_ = f"{node.module}.{name.name}".split(".")
                if root == "diswot" and other != own and {own, other} <= packages:
                    found.add((own, other))
    return found


def main() -> None:
    """Measure, and print."""
    trees = {p: ast.parse(p.read_text()) for p in sorted(ROOT.rglob("*.py"))}
    lines = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in trees}
    functions = {
        f"{path.relative_to(ROOT)}: {node.name}": node
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, Function)
    }
    bodies = {name: body(node) for name, node in functions.items()}
    lists = {name: parameters(node) for name, node in functions.items()}
    for title, unit, sizes in (
        ("modules", "lines", lines),
        ("functions without docstrings", "lines", bodies),
        ("functions", "parameters", lists),
    ):
        facts = f"{len(sizes)} {title}, mean {mean(sizes.values()):.1f} {unit}"
        rows = sorted(sizes.items(), key=lambda item: -item[1])[:LARGEST]
        console.table(
            f"{facts}, median {median(sizes.values()):.0f}",
            ["largest", unit],
            [[name, str(size)] for name, size in rows],
        )
    held = [ast.get_docstring(node) is not None for tree in trees.values() for node in public(tree)]
    tests = sum(len(path.read_text().splitlines()) for path in TESTS.rglob("*.py"))
    top = [path for path in trees if path.parent == ROOT]
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    print(
        f"{len(top)} modules at the top level, {len(packages)} packages, "
        f"{len(arrows(trees, packages))} arrows between these"
    )
    print(f"{sum(lines.values()):,} lines of src, {tests:,} lines of tests")
    print(f"{sum(held)} of {len(held)} public modules, classes and functions have a docstring")


if __name__ == "__main__":
    main()

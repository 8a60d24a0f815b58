"""Tests mirror the package: `tests/a/test_b.py` holds those of `diswot.a.b`.

What is tested elsewhere is listed here, and nowhere else.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import diswot

ROOT, TESTS = Path(diswot.__file__).parent, Path(__file__).parent

# Parts that have no meaning of their own, by the test that looks at them from outside.
ELSEWHERE = {
    # commands and their options are tested as they are typed
    "test_cli": (
        "__main__",
        "cli/distill",
        "cli/found",
        "cli/names",
        "cli/options",
        "cli/runs",
        "cli/score",
    ),
    "cli/test_budgets": ("cli/search",),
    "cli/test_inputs": ("cli/evaluate", "teachers/wants"),
    "test_search": ("found",),
    "test_verify": ("cli/training", "cli/verify"),
    # tables and data sets from their parts
    "data/test_parquet": ("data/hub", "data/records"),
    "tables/test_tables": ("tables/nats", "tables/records", "tables/rows"),
    # scores from what they share
    "proxies/test_activations": ("proxies/watch",),
    "proxies/test_az_nas": ("proxies/blocks", "proxies/capacity"),
    "proxies/test_gradients": ("proxies/passes", "proxies/spectra", "proxies/synflow"),
    "test_proxies": ("proxies/candidate", "proxies/composite", "proxies/scoring"),
    # whole files
    "export/test_export": ("cli/export", "export/about", "export/formats"),
    "report/test_page": ("cli/report", "report/__init__", "report/networks", "report/view"),
    # what is said between them, from those who say it
    "workers/test_pool": ("workers/__init__", "workers/transport"),
    # names alone
    "test_layers": ("__init__", "layout"),
}

# Tests of several parts together, or of what is no module.
TOGETHER = {
    "knowledge/test_conformance",
    "knowledge/test_dkd_dist",
    "report/test_browser",
    "spaces/test_conformance",
    "spaces/test_docs",
    "test_cluster_nodes",
    "test_determinism",
    "test_distill_full",
    "test_docs",
    "test_examples",
    "test_faults",
    "test_hostile",
    "test_layers",
    "test_mirror",
    "test_notebooks",
    "test_observe_zoo",
    "test_own_teacher",
    "test_recorded",
    "test_study",
}


def named(root: Path, pattern: str) -> set[str]:
    """Files below a folder without their endings."""
    return {path.relative_to(root).with_suffix("").as_posix() for path in root.rglob(pattern)}


MODULES, FILES = named(ROOT, "*.py"), named(TESTS, "test_*.py")


def mirrors(module: str) -> set[str]:
    """Where the tests of a module may be: those of a package in its folder, or above."""
    folder, _, name = module.rpartition("/")
    if name == "__init__":
        above, _, last = folder.rpartition("/")
        return {f"{folder}/test_{last}", f"{above}/test_{last}".lstrip("/")}
    return {f"{folder}/test_{name}".lstrip("/")}


LISTED = {module: test for test, modules in ELSEWHERE.items() for module in modules}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_module_has_its_tests(module: str) -> None:
    assert bool(mirrors(module) & FILES) != (module in LISTED), (
        f"tests of {module} belong in {' or '.join(sorted(mirrors(module)))}.py"
    )


@pytest.mark.parametrize("test", sorted(FILES))
def test_tests_have_their_module(test: str) -> None:
    mirrored = {place for module in MODULES for place in mirrors(module)}
    assert (test in mirrored) != (test in TOGETHER), f"{test}.py mirrors no module"


def test_what_is_listed_is_there() -> None:
    assert LISTED.keys() <= MODULES and ELSEWHERE.keys() | TOGETHER <= FILES
    assert len(LISTED) == sum(map(len, ELSEWHERE.values())), "listed twice"


@pytest.mark.parametrize(
    ("module", "places"),
    [
        ("loop", {"test_loop"}),
        ("cli/rank", {"cli/test_rank"}),
        ("rank/__init__", {"rank/test_rank", "test_rank"}),
        ("a/b/__init__", {"a/b/test_b", "a/test_b"}),
    ],
)
def test_places(module: str, places: set[str]) -> None:
    assert mirrors(module) == places

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
        "cli/doctor",
        "cli/found",
        "cli/names",
        "cli/options",
        "cli/score",
        "cli/score_names",
        "cli/subject",
        "cli/training_options",
        "training/starts",
    ),
    "cli/test_budgets": ("cli/search", "cli/search_job"),
    "cli/test_rank": ("cli/rank_scores",),
    "cli/test_rank_study": ("cli/study_file",),
    "cli/test_inputs": ("cli/evaluate", "models/preprocessing"),
    "training/test_distill": ("training/loop", "training/trainable"),
    "test_results": ("training/verified",),
    "training/test_doctor": (
        "training/data_checks",
        "training/finding",
        "training/loss_checks",
        "training/teacher_checks",
    ),
    # tables and data sets from their parts
    "data/test_folder": ("data/image_files", "data/split_folders"),
    "data/test_huggingface_boxes": ("data/huggingface_tables",),
    "data/test_own_masks": ("data/huggingface_masks", "data/masked"),
    "data/test_parquet": ("data/huggingface", "data/tabular"),
    "ranking/tables/test_read": (
        "ranking/tables/nats",
        "ranking/tables/notations",
        "ranking/tables/raw_rows",
        "ranking/tables/rows",
    ),
    # observations and scores from what they share
    "knowledge/test_detectors": ("knowledge/rows",),
    "proxies/test_detectors": ("observation/losses",),
    # costs, spaces and losses of dense networks
    "costs/test_latency": ("costs/onnx_program",),
    "models/test_segmentation_models": ("spaces/smp_zoo",),
    "spaces/test_dense": ("models/backbones",),
    "observation/test_observe": ("observation/class_gradient",),
    "proxies/test_activations": ("proxies/activation_codes",),
    "proxies/test_az_nas": ("proxies/blocks", "proxies/recorders"),
    "proxies/test_gradients": ("proxies/passes", "proxies/ntk_fisher", "proxies/synflow"),
    "proxies/test_scorer": ("proxies/candidate",),
    # whole files
    "exporters/test_int8": ("cli/int8", "exporters/int8_comparison"),
    "exporters/test_export": ("cli/export", "exporters/model_card", "exporters/formats"),
    "reports/test_page": ("cli/report", "reports/report", "reports/networks", "reports/view"),
    # tasks and their pictures by the table of tasks
    "reports/test_masks": ("reports/drawing", "reports/predictions"),
    "tasks/test_registry": ("tasks/classification", "tasks/segmentation", "tasks/task"),
    # sub-networks from their parts
    "models/test_subnetworks": (
        "models/block_runs",
        "models/channel_dependencies",
        "models/subnetwork_tracing",
    ),
    # a student's start from its parts
    "models/test_inheritance": (
        "models/channels",
        "models/correspondence",
        "models/hidden_channels",
        "models/inherited_weights",
        "models/weighted_layers",
    ),
    # networks by name
    "spaces/test_nasbench201": ("spaces/cells",),
    "spaces/test_cifar_resnet": ("models/cifar_resnet",),
    # what is said between them, from those who say it
    "executors/test_inline": ("executors/protocol",),
    "cli/test_training": ("training/progress",),
    # names alone
    "test_layers": ("__init__", "storage/run_files"),
}

# Tests of several parts together, or of what is no module.
TOGETHER = {
    "exporters/test_dense",
    "knowledge/test_conformance",
    "knowledge/test_detectors",
    "models/test_dense_inheritance",
    "proxies/test_default_tau",
    "proxies/test_detectors",
    "reports/test_browser",
    "spaces/test_conformance",
    "spaces/test_docs",
    "test_cli",
    "test_cluster_nodes",
    "test_determinism",
    "test_distill_full",
    "test_docs",
    "test_examples",
    "test_faults",
    "test_headline",
    "test_hostile",
    "test_initialisation",
    "test_layers",
    "test_mirror",
    "test_notebooks",
    "test_observe_detectors",
    "test_observe_transformers",
    "test_observe_zoo",
    "test_own_functions",
    "test_own_teacher",
    "test_recorded",
    "test_results",
    "test_packaging",
    "test_subnets",
    "test_teachers_table",
    "test_words",
    "training/test_detection",
    "training/test_segmentation",
}


def named(root: Path, pattern: str) -> set[str]:
    """Return the files below a folder without their endings."""
    return {path.relative_to(root).with_suffix("").as_posix() for path in root.rglob(pattern)}


MODULES = {name for name in named(ROOT, "*.py") if "/__init__" not in name}
FILES = named(TESTS, "test_*.py")
LISTED = {module: test for test, modules in ELSEWHERE.items() for module in modules}


def mirror(module: str) -> str:
    """Return where the tests of a module are."""
    folder, _, name = module.rpartition("/")
    return f"{folder}/test_{name}".lstrip("/")


def test_every_module_has_its_tests() -> None:
    wrong = [m for m in sorted(MODULES) if (mirror(m) in FILES) == (m in LISTED)]

    assert not wrong, "\n".join(f"tests of {m} belong in {mirror(m)}.py" for m in wrong)


def test_every_test_has_its_module() -> None:
    mirrored = {mirror(module) for module in MODULES}
    wrong = [test for test in sorted(FILES) if (test in mirrored) == (test in TOGETHER)]

    assert not wrong, f"these mirror no module, or are listed though they do: {wrong}"


def test_what_is_listed_is_there() -> None:
    assert LISTED.keys() <= MODULES and ELSEWHERE.keys() | TOGETHER <= FILES
    assert len(LISTED) == sum(map(len, ELSEWHERE.values())), "listed twice"


def test_packages_hold_no_code() -> None:
    """All but the top-level package and the command line are docstrings."""
    own = {"__init__.py", "cli/__init__.py"}
    inits = {path.relative_to(ROOT).as_posix(): path for path in ROOT.rglob("__init__.py")}
    wrong = [
        name for name, path in inits.items() if name not in own and path.read_text().count("\n") > 3
    ]

    assert not wrong


@pytest.mark.parametrize(
    ("module", "place"),
    [("errors", "test_errors"), ("cli/rank", "cli/test_rank"), ("a/b/c", "a/b/test_c")],
)
def test_places(module: str, place: str) -> None:
    assert mirror(module) == place

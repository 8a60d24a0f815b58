"""`diswot list`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from diswot.cli import console
from diswot.cli.file_functions import functions_of
from diswot.cli.grouping import grouped
from diswot.errors import unknown

if TYPE_CHECKING:
    from diswot.knowledge.registry import Knowledge
    from diswot.proxies.registry import Proxy

Rows = dict[str, list[str]]

_COLUMNS = {
    "proxies": ["what (higher is better)", "needs", "cost", "init", "from"],
    "losses": ["what", "stages, and other shapes", "published settings (NAME:published)", "from"],
}
_DATA = {
    "FOLDER": [
        "a folder of one folder of images a class, of Parquet files, or of ImageNet16",
        "",
    ],
    "FOLDER of masks": ["images and masks of the same names, for segmentation", ""],
    "FOLDER of boxes": ["Pascal VOC, COCO or YOLO, for detection", ""],
    "FILE.parquet": ["encoded images and labels (extra hf)", ""],
    "FILE.py:FUNCTION": ["a torch map data set of (image, label), or train and test", ""],
    "hf:NAME": ["a data set of the Hugging Face hub, hf:NAME[,CONFIG][:SPLIT] (extra hf)", ""],
}


_What = Annotated[
    str,
    Argument(
        metavar="LIST",
        help="List to show: tasks, teachers, spaces, data, proxies, losses, recipes, samplers, "
        "inits or all.",
    ),
]
_File = Annotated[
    str | None,
    Option(
        "--file",
        help="File FILE.py, or module PACKAGE.MODULE, whose functions are listed instead, each "
        "with the options that take it.",
    ),
]
_Json = Annotated[bool, Option("--json", help="Print one JSON object on standard output.")]


@grouped()
def list_names(what: _What = "all", *, file: _File = None, as_json: _Json = False) -> None:
    """List the names that options take."""
    wanted = _wanted(what) if file is None else {file: functions_of(file)}
    if as_json:
        console.show_json(wanted)
        return
    for title, rows in wanted.items():
        lines = [[name, *row] for name, row in rows.items()]
        usual = ["what", "from"] if file is None else ["options", "what"]
        columns = ["name", *_COLUMNS.get(title, usual)]
        console.table(title, columns, lines, text=len(columns))


def _wanted(what: str) -> dict[str, Rows]:
    """Return one of the lists, or all."""
    lists = _lists()
    if what != "all" and what not in lists:
        raise unknown("list", what, lists)
    return {title: lists[title]() for title in (lists if what == "all" else [what])}


def _lists() -> dict[str, Callable[[], Rows]]:
    """Return a function for each list, so that only the lists that are shown are made."""
    from diswot.data.registry import SETS
    from diswot.models.initialization import INITS
    from diswot.nas.samplers import SAMPLERS
    from diswot.proxies.registry import PROXIES
    from diswot.tasks.registry import TASKS
    from diswot.training.recipe_files import RECIPES

    return {
        "tasks": lambda: {name: [row.summary, ""] for name, row in TASKS.items()},
        "teachers": _teachers,
        "spaces": _spaces,
        "data": lambda: {name: [row.summary, row.paper] for name, row in SETS.items()} | _DATA,
        "proxies": lambda: {name: _facts(row) for name, row in PROXIES.items()},
        "losses": _losses,
        "recipes": lambda: {name: [_summary(path), ""] for name, path in RECIPES.items()},
        "samplers": lambda: {n: [row.summary, row.paper] for n, row in SAMPLERS.items()},
        "inits": lambda: {n: [(f.__doc__ or "").split(".")[0], ""] for n, f in INITS.items()},
    }


def _spaces() -> Rows:
    from diswot.spaces.registry import SPACES

    return {
        f"{name}:{row.argument.upper()}" if row.example else name: [
            row.summary if row.size is None else f"{row.summary}; {row.size:,} networks",
            row.paper,
        ]
        for name, row in SPACES.items()
    }


def _losses() -> Rows:
    from diswot.knowledge.registry import KNOWLEDGE
    from diswot.training.recipe import PRESETS

    presets = {n: [" + ".join(parts), "", "", "DisWOT, CVPR 2023"] for n, parts in PRESETS.items()}
    return {name: _loss(row) for name, row in KNOWLEDGE.items()} | presets


def _summary(path: Path) -> str:
    """Return the first line of a recipe, which is a comment."""
    return path.read_text().partition("\n")[0].removeprefix("# ")


def _loss(row: Knowledge) -> list[str]:
    """Return what a distance compares, its adapter for other shapes, and published settings."""
    needs = "equal widths" * row.same_width
    adapter = row.adapter.summary if row.adapter else needs
    return [row.summary, adapter, ", ".join(_published(row)), row.paper]


def _published(row: Knowledge) -> list[str]:
    """Return the published weights, and the temperature, which is the default."""
    warmth = row.defaults.get("temperature")
    parts = [f"T {warmth:g}"] if isinstance(warmth, float) else []
    if row.published is None:
        return parts
    parts = [f"weight {row.published.weight:g}", *parts]
    if row.published.cross_entropy != 1:
        parts.append(f"cross-entropy {row.published.cross_entropy:g}")
    if row.published.ramp:
        parts.append(f"growing over {240 * row.published.ramp:g} of 240 epochs")
    return parts


def _facts(row: Proxy) -> list[str]:
    """Return what a proxy needs and costs."""
    wanted = {
        "teacher of equal width": row.same_width,
        "teacher": row.needs_teacher and not row.same_width,
        "labels": row.needs_labels,
        "backward": row.needs_backward,
        "batches": row.needs_batches,
    }
    needs = ", ".join(name for name, needed in wanted.items() if needed)
    init = row.init if row.needs_forward else ""
    return [row.summary, needs, row.cost, init, row.paper]


def _teachers() -> Rows:
    from diswot.costs.counts import count_params
    from diswot.models.registry import LIBRARIES, TEACHERS, create_teacher
    from diswot.utils.units import show_count

    sizes = {name: show_count(count_params(create_teacher(name))) for name in TEACHERS}
    paper = "He et al., CVPR 2016"
    rows = {n: [f"CIFAR ResNet, {size} params for 100 classes", paper] for n, size in sizes.items()}
    libraries = LIBRARIES.items()
    return rows | {f"{n}:NAME": [f"{r.summary}: {r.example}", ""] for n, r in libraries}

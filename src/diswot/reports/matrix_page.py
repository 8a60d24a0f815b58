"""The page of a study of many tables: the matrix of scores and targets."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from diswot import __version__
from diswot.reports import formats
from diswot.utils import files


def write_matrix_page(path: Path, title: str, matrix: Mapping[str, Any], command: str) -> None:
    """Write a matrix as one HTML page that loads nothing from elsewhere.

    Args:
        path: File of the page.
        title: Title of the study.
        matrix: What `ranking.matrix.as_dict` returns, with None for numbers that are not finite.
        command: Command line that made the matrix.
    """
    parts = resources("diswot.reports") / "page"
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["decimal"] = formats.decimal
    template = environment.from_string((parts / "matrix.html").read_text(encoding="utf-8"))
    page = template.render(
        title=title,
        matrix=matrix,
        command=command,
        style=Markup((parts / "page.css").read_text(encoding="utf-8")),
        version=__version__,
    )
    files.write(path, lambda temporary: Path(temporary).write_text(page, encoding="utf-8"))

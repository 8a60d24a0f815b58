"""Pages of a run, a comparison and a rank study, which load nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections.abc import Mapping
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

import plotly.offline
from jinja2 import ChainableUndefined, Environment, TemplateError
from markupsafe import Markup

from diswot import __version__
from diswot.errors import UserError
from diswot.proxies.registry import PROXIES, score_title
from diswot.reports import formats
from diswot.reports.charts import Chart, accuracy_by_params, brief, differing
from diswot.reports.view import View, build_view
from diswot.runs.compared import RunComparison
from diswot.runs.records import Run
from diswot.tasks.registry import find_result
from diswot.utils import files
from diswot.utils.environment import without_passwords


def summary(score: object) -> str:
    """Return what a score measures; empty for a score of the user's own."""
    known = PROXIES.get(str(score))
    return known.summary if known else ""


FILTERS = {
    "brief": brief,
    "differing": differing,
    "count": formats.count,
    "epochs": formats.epochs,
    "decimal": formats.decimal,
    "basename": formats.basename,
    "pretty": formats.pretty,
    "cost": formats.cost,
    "tested": find_result,
    "duration": formats.duration,
    "summary": summary,
    "score_title": score_title,
}


def render(run: Run, *, networks: bool = True) -> str:
    """Render the page of a run as HTML text; without networks, none is built.

    Raises:
        UserError: A file of the run has another form than diswot writes.
    """
    try:
        view = build_view(run, networks)
        kind = "search" if run.search else "rank study" if run.studies else "training"
        return fill(
            "page.html",
            view.charts,
            view=view,
            run=run,
            search=run.search,
            tabs=_tabs(view),
            title=f"{run.folder.resolve().name}: {kind}",
            command=_command(run.facts),
        )
    except (TemplateError, LookupError, TypeError, AttributeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"the files in {run.folder} are not what diswot writes: {reason}"
        ) from error


def fill(name: str, charts: Mapping[str, Chart], **values: object) -> str:
    """Fill a template by name; text is escaped, and only the scripts of the page may run."""
    parts = resources("diswot.reports") / "page"
    plotly_js = plotly.offline.get_plotlyjs()
    script = (parts / "page.js").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=ChainableUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= FILTERS
    template = environment.from_string((parts / name).read_text(encoding="utf-8"))
    return template.render(
        **values,
        figures=_embedded(charts),
        style=Markup((parts / "page.css").read_text(encoding="utf-8")),
        plotly=Markup(plotly_js),
        script=Markup(script),
        hashes=" ".join(map(_hash, (plotly_js, script))),
        version=__version__,
    )


def write_compare_page(path: Path, comparison: RunComparison) -> None:
    """Write a comparison of runs, with a chart for each number of epochs and each data set."""
    drawn = {
        title: accuracy_by_params(comparison, condition)
        for condition, title in comparison.titles().items()
    }
    page = fill("compare.html", drawn, comparison=comparison, titles=list(drawn))
    files.write_text(path, page)


def write_matrix_page(path: Path, title: str, matrix: Mapping[str, Any], command: str) -> None:
    """Write what `ranking.matrix.as_dict` returns, with None for numbers that are not finite."""
    page = fill("matrix.html", {}, title=title, matrix=matrix, command=command)
    files.write_text(path, page)


def _tabs(view: View) -> dict[str, str]:
    """Return the titles of the page's tabs by element id."""
    run = view.run
    tabs = {
        "search": "Search" if run.search else "",
        "networks": "Features" if run.search or view.predictions else "",
        "verified": "Verified" if view.verified else "",
        "candidates": "Candidates" if view.rows else "",
        "training": "Training" if run.trainings else "",
        "rank": "Rank study" if run.studies else "",
        "run": "Command and versions",
    }
    return {name: title for name, title in tabs.items() if title}


def _command(facts: Mapping[str, Any]) -> str:
    """Return the command line of the run, with passwords masked."""
    words = facts.get("command")
    return without_passwords(shlex.join(map(str, words))) if isinstance(words, list) else ""


def _embedded(value: object) -> Markup:
    """Encode a value as JSON that is safe inside a script element."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"

"""The page of a report: the view, put into the template."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections.abc import Mapping
from importlib.resources import files as resources
from typing import Any

import plotly.offline
from jinja2 import ChainableUndefined, Environment, TemplateError
from markupsafe import Markup

from diswot import __version__
from diswot.errors import UserError
from diswot.reports import formats
from diswot.reports.charts import brief
from diswot.reports.view import View, see
from diswot.runs.records import Run
from diswot.utils.environment import masked

FILTERS = {
    "brief": brief,
    "count": formats.count,
    "epochs": formats.epochs,
    "figure": formats.figure,
    "last": formats.last,
    "pretty": formats.pretty,
    "quantity": formats.quantity,
    "span": formats.span,
}


def render(run: Run, *, networks: bool = True) -> str:
    """The whole page as text.

    Args:
        run: What to show.
        networks: Whether teacher and students may be built.

    Raises:
        UserError: The files of the run are not of the form that diswot writes.
    """
    try:
        return _page(see(run, networks))
    except (TemplateError, LookupError, TypeError, AttributeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"the files in {run.folder} are not what diswot writes: {reason}"
        ) from error


def _page(shown: View) -> str:
    """Fill the template; what it shows is escaped, and only its own scripts may run."""
    parts = resources("diswot.reports") / "page"
    plotly_js = plotly.offline.get_plotlyjs()
    script = (parts / "page.js").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=ChainableUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= FILTERS
    template = environment.from_string((parts / "page.html").read_text(encoding="utf-8"))
    return template.render(
        view=shown,
        run=shown.run,
        search=shown.run.search,
        tabs=_tabs(shown),
        title=_title(shown.run),
        command=_command(shown.run.facts),
        figures=_embedded(shown.charts),
        style=Markup((parts / "page.css").read_text(encoding="utf-8")),
        plotly=Markup(plotly_js),
        script=Markup(script),
        hashes=" ".join(map(_hash, (plotly_js, script))),
        version=__version__,
    )


def _tabs(shown: View) -> dict[str, str]:
    """Views of the page, by the id of their place."""
    run = shown.run
    tabs = {
        "search": "Search" if run.search else "",
        "networks": "What they see" if run.search else "",
        "verified": "Verified" if run.search and run.search.verified() else "",
        "candidates": "Candidates" if shown.rows else "",
        "training": "Training" if run.trainings else "",
        "rank": "Rank study" if run.studies else "",
        "run": "How it was made",
    }
    return {name: title for name, title in tabs.items() if title}


def _title(run: Run) -> str:
    kind = "search" if run.search else "rank study" if run.studies else "training"
    return f"{run.folder.resolve().name}: {kind}"


def _command(facts: Mapping[str, Any]) -> str:
    """As it was typed."""
    words = facts.get("command")
    return masked(shlex.join(map(str, words))) if isinstance(words, list) else ""


def _embedded(value: object) -> Markup:
    """JSON that ends no script, whatever it holds."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"

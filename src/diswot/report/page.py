"""The page of a report: what a run holds, put into the template."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

import plotly.offline
from jinja2 import ChainableUndefined, Environment, TemplateError
from markupsafe import Markup

from diswot import __version__
from diswot.budget import show_bytes, show_count, show_seconds
from diswot.checkpoint import WEIGHTS
from diswot.errors import UserError
from diswot.facts import masked
from diswot.layout import TRAINED
from diswot.report import charts
from diswot.report.networks import Look, Pair, Sizes, attempt, looks
from diswot.report.read import Candidate, Run, Search, Study, number

ROWS = 100  # of the table of the best
NONE = "-"
BUILT = 40  # of them whose networks are built, for MACs and depth


@dataclass(frozen=True)
class Row:
    """A line of the table of the best."""

    candidate: Candidate
    sizes: Sizes | None
    front: bool


@dataclass(frozen=True)
class Contender:
    """A line of the comparison with the teacher."""

    name: str
    sizes: Sizes | None
    accuracy: float | None
    what: str = ""
    spread: str = ""


@dataclass
class View:
    """What the template shows.

    Attributes:
        run: As read.
        charts: By the id of their place in the page.
        notes: What could not be shown, and why.
        best: The student.
        contenders: The student beside its teacher.
        rows: The table of the best.
        looks: What teacher and student see.
        missing: Why a chart is not there, by the id of its place.
    """

    run: Run
    charts: dict[str, charts.Chart] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    best: Candidate | None = None
    contenders: list[Contender] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)


def render(run: Run, *, networks: bool = True) -> str:
    """The whole page as text.

    Args:
        run: What to show.
        networks: Whether teacher and students may be built.

    Raises:
        UserError: The files of the run are not of the form that diswot writes.
    """
    try:
        return _page(_view(run, networks))
    except (TemplateError, LookupError, TypeError, AttributeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"the files in {run.folder} are not what diswot writes: {reason}"
        ) from error


def _view(run: Run, networks: bool) -> View:
    """What there is to show."""
    view = View(run, notes=list(run.notes))
    if run.search is not None:
        _see_search(view, run.search, networks)
    if run.trainings:
        shown = [training for training in run.trainings if training.history]
        view.charts["accuracy"] = charts.accuracies(shown)
        view.charts["loss"] = charts.losses(shown)
    for place, study in enumerate(run.studies):
        _see_study(view, place, study)
    return view


def _see_search(view: View, search: Search, networks: bool) -> None:
    """The student, its teacher, the table, and the charts of the search."""
    best = _mapping(search.found.get("best"))
    ranked = search.scored()
    chosen = [c for c in ranked if c.params == best.get("params")] or ranked
    view.best = chosen[0] if chosen else None
    pair = Pair(search.config)
    if networks and "teacher" in search.config:
        _see_networks(view, pair)
    else:
        view.missing["looks"] = "No network was built for this report."
    view.rows = _rows(ranked, pair if networks else None, view.notes)
    view.contenders = _contenders(view, pair, networks)
    if ranked:
        view.charts["trials"] = charts.trials(search)
        for cost in search.costs():
            view.charts[f"against-{cost}"] = charts.against(search, view.best, cost)
        if search.verified():
            view.charts["verified"] = charts.verified(search.verified())
        _try_chart(view, "importance", lambda: charts.importance(search))


def _see_networks(view: View, pair: Pair) -> None:
    """What teacher and student see, as far as networks and data are there."""
    if view.best is None:
        view.missing["looks"] = "No candidate has a score yet."
        return
    params, trained = view.best.params, _trained(view, pair)
    notes: list[str] = []
    seen = attempt(notes, "what the networks see", lambda: looks(pair, params, trained))
    view.looks = seen or []
    if notes:
        view.missing["looks"] = "It cannot be made again: " + "; ".join(notes)
    for look in view.looks:
        for who, matrix in (("teacher", look.teacher), ("student", look.student)):
            view.charts[f"{look.key}-{who}"] = charts.relation(look, matrix, who)


def _trained(view: View, pair: Pair) -> tuple[str, Path] | None:
    """Files of the weights of the search's teacher and of the student that it taught."""
    assert view.best is not None
    place = view.run.folder / "distilled" / WEIGHTS
    result = next((t.result for t in view.run.trainings if t.name == "distilled"), {})
    weights = result.get("teacher_weights") or pair.config.get("teacher_weights")
    same = result.get("student") == view.best.params
    same = same and result.get("teacher") == pair.config.get("teacher")
    return (str(weights), place) if same and weights and place.is_file() else None


def _rows(ranked: list[Candidate], pair: Pair | None, notes: list[str]) -> list[Row]:
    """The best, each with its sizes; the first of them are built for that."""
    front = {c.trial for c in charts.pareto(ranked)}
    rows, failed = [], False
    for place, candidate in enumerate(ranked[:ROWS]):
        sizes = None
        if pair is not None and place < BUILT and not failed:
            sizes = attempt(notes, "sizes of candidates", lambda c=candidate: _size(pair, c))  # type: ignore[misc]
            failed = sizes is None
        rows.append(Row(candidate, sizes, candidate.trial in front))
    return rows


def _size(pair: Pair, candidate: Candidate) -> Sizes:
    return pair.sizes(pair.student(candidate.params))


def _contenders(view: View, pair: Pair, networks: bool) -> list[Contender]:
    """The teacher, and the student in each way that it was trained."""
    config = pair.config
    name = str(config.get("teacher", "teacher"))
    sizes = None
    if networks and "teacher" in config:
        sizes = attempt(view.notes, "the teacher's size", lambda: pair.sizes(pair.teacher()))
    teacher = Contender(f"teacher: {_last(name)}", sizes, _teacher_accuracy(view, config))
    return [teacher, *_students(view)] if view.best is not None else [teacher]


def _teacher_accuracy(view: View, config: Mapping[str, Any]) -> float | None:
    """What is told beside its weights, those of the search or of a training; else in the run."""
    name, results = config.get("teacher"), [training.result for training in view.run.trainings]
    files = [config, *(result for result in results if result.get("teacher") == name)]
    told = [_accuracy_beside(each.get("teacher_weights")) for each in files]
    own = [each for each in results if each.get("student") == name and not each.get("teacher")]
    told += [number(each.get("test_accuracy")) for each in own]
    return next((accuracy for accuracy in told if accuracy is not None), None)


def _students(view: View) -> list[Contender]:
    """The student, a line a way to train it: the mean and range of its runs."""
    assert view.best is not None
    sizes = next((row.sizes for row in view.rows if row.candidate == view.best), None)
    ways: dict[tuple[str, str], list[float]] = {}
    for result in (training.result for training in view.run.trainings):
        test = number(result.get("test_accuracy"))
        if result.get("student") == view.best.params and test is not None:
            taught = result.get("teacher")
            way = f"distilled from {_last(str(taught))}" if taught else "trained alone"
            ways.setdefault((way, _epochs(result.get("epochs"))), []).append(test)
    return [
        Contender(
            f"student, {way}",
            sizes,
            statistics.fmean(tests),
            epochs if len(tests) == 1 else f"{epochs}, mean of {len(tests)} runs",
            f"{min(tests):.2f} to {max(tests):.2f}" if len(tests) > 1 else "",
        )
        for (way, epochs), tests in ways.items()
    ] or [Contender("student, not trained yet", sizes, None)]


def _accuracy_beside(weights: object) -> float | None:
    """What the training that left some weights wrote of them."""
    if not isinstance(weights, str):
        return None
    try:
        text = Path(weights).with_name(TRAINED).read_text()
        return number(_mapping(_mapping(json.loads(text)).get("result")).get("test_accuracy"))
    except (OSError, ValueError):
        return None


def _see_study(view: View, place: int, study: Study) -> None:
    """Taus, and a cloud a score."""
    view.charts[f"taus-{place}"] = charts.taus(study)
    if str(study.result.get("target")) in study.accuracies:
        for score in study.scores:
            view.charts[f"cloud-{place}-{score}"] = charts.cloud(study, score)


def _try_chart(view: View, name: str, make: Callable[[], charts.Chart]) -> None:
    try:
        view.charts[name] = make()
    except UserError as error:
        view.missing[name] = f"Not defined here: {error}"


def _page(view: View) -> str:
    """Fill the template; what it shows is escaped, and only its own scripts may run."""
    parts = resources("diswot.report") / "page"
    plotly_js = plotly.offline.get_plotlyjs()
    script = (parts / "page.js").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=ChainableUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"count": _count, "brief": charts.brief, "last": _last}
    environment.filters |= {
        "pretty": lambda value: masked(_pretty(value)),
        "quantity": _quantity,
        "figure": _figure,
        "span": _span,
        "epochs": _epochs,
    }
    template = environment.from_string((parts / "page.html").read_text(encoding="utf-8"))
    return template.render(
        view=view,
        run=view.run,
        search=view.run.search,
        tabs=_tabs(view),
        title=_title(view),
        command=_command(view.run.facts),
        figures=_embedded(view.charts),
        style=Markup((parts / "page.css").read_text(encoding="utf-8")),
        plotly=Markup(plotly_js),
        script=Markup(script),
        hashes=" ".join(map(_hash, (plotly_js, script))),
        version=__version__,
    )


def _tabs(view: View) -> dict[str, str]:
    """Views of the page, by the id of their place."""
    run = view.run
    tabs = {
        "search": "Search" if run.search else "",
        "networks": "What they see" if run.search else "",
        "verified": "Verified" if run.search and run.search.verified() else "",
        "candidates": "Candidates" if view.rows else "",
        "training": "Training" if run.trainings else "",
        "rank": "Rank study" if run.studies else "",
        "run": "How it was made",
    }
    return {name: title for name, title in tabs.items() if title}


def _title(view: View) -> str:
    kind = "search" if view.run.search else "rank study" if view.run.studies else "training"
    return f"{view.run.folder.resolve().name}: {kind}"


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


def _count(value: object) -> str:
    """A count with its unit, or a dash."""
    known = number(value)
    return NONE if known is None else show_count(known)


def _figure(value: object, form: str = ".5g") -> str:
    """A number in a form, or a dash."""
    known = number(value)
    return NONE if known is None else format(known, form)


def _quantity(value: object, name: str) -> str:
    """A cost with its unit."""
    known = number(value)
    if known is None:
        return NONE
    if name == "latency":
        return show_seconds(known)
    return show_bytes(known) if name == "memory" else format(known, ".5g")


def _epochs(value: object) -> str:
    """So many epochs."""
    return f"{value} epoch{'' if value == 1 else 's'}"


def _span(value: object) -> str:
    """Seconds as people say them."""
    seconds = number(value)
    if seconds is None:
        return NONE
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _pretty(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def _last(name: str) -> str:
    """A name, and of a path only what comes last."""
    return name.rstrip("/").rpartition("/")[2] or name


def _mapping(value: object) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}

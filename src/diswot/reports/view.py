"""What a report shows of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from diswot.errors import UserError
from diswot.reports import charts, contenders
from diswot.reports.contenders import Contender
from diswot.reports.networks import Look, Sizes, attempt, looks, sizes_of
from diswot.runs.rebuild import RecordedNetworks
from diswot.runs.records import RankStudyRecord, Run, SearchRecord, TrialRecord
from diswot.storage.run_files import DISTILLED
from diswot.utils.untrusted import mapping

ROWS = 100  # of the table of the best
BUILT = 40  # of them whose networks are built, for MACs and depth


@dataclass(frozen=True)
class Row:
    """A line of the table of the best."""

    candidate: TrialRecord
    sizes: Sizes | None
    front: bool


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
    best: TrialRecord | None = None
    contenders: list[Contender] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)


def see(run: Run, networks: bool) -> View:
    """Look at a run.

    Args:
        run: What to show.
        networks: Whether teacher and students may be built.
    """
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


def _see_search(view: View, search: SearchRecord, networks: bool) -> None:
    """The student, its teacher, the table, and the charts of the search."""
    best = mapping(search.found.get("best"))
    ranked = search.scored()
    chosen = [c for c in ranked if c.params == best.get("params")] or ranked
    view.best = chosen[0] if chosen else None
    recorded = RecordedNetworks(search.config)
    if networks and "teacher" in search.config:
        _see_networks(view, recorded)
    else:
        view.missing["looks"] = "No network was built for this report."
    view.rows = _rows(ranked, recorded if networks else None, view.notes)
    view.contenders = _contenders(view, recorded, networks)
    if ranked:
        view.charts["trials"] = charts.trials(search)
        for cost in search.costs():
            view.charts[f"against-{cost}"] = charts.against(search, view.best, cost)
        if search.verified():
            view.charts["verified"] = charts.verified(search.verified())
        _try_chart(view, "importance", lambda: charts.importance(search))


def _see_networks(view: View, recorded: RecordedNetworks) -> None:
    """What teacher and student see, as far as networks and data are there."""
    if view.best is None:
        view.missing["looks"] = "No candidate has a score yet."
        return
    params, trained = view.best.params, _trained(view, recorded)
    notes: list[str] = []
    seen = attempt(notes, "what the networks see", lambda: looks(recorded, params, trained))
    view.looks = seen or []
    if notes:
        view.missing["looks"] = "It cannot be made again: " + "; ".join(notes)
    for look in view.looks:
        for who, matrix in (("teacher", look.teacher), ("student", look.student)):
            view.charts[f"{look.key}-{who}"] = charts.relation(look, matrix, who)


def _trained(view: View, recorded: RecordedNetworks) -> tuple[str, Path] | None:
    """Files of the weights of the search's teacher and of the student that it taught."""
    assert view.best is not None
    training = next((t for t in view.run.trainings if t.name == DISTILLED), None)
    if training is None or training.weights is None:
        return None
    result = training.result
    weights = result.get("teacher_weights") or recorded.config.get("teacher_weights")
    same = result.get("student") == view.best.params
    same = same and result.get("teacher") == recorded.config.get("teacher")
    return (str(weights), training.weights) if same and weights else None


def _rows(
    ranked: list[TrialRecord], recorded: RecordedNetworks | None, notes: list[str]
) -> list[Row]:
    """The best, each with its sizes; the first of them are built for that."""
    front = {c.trial for c in charts.pareto(ranked)}
    rows, failed = [], False
    for place, candidate in enumerate(ranked[:ROWS]):
        sizes = None
        if recorded is not None and place < BUILT and not failed:
            sizes = attempt(notes, "sizes of candidates", lambda c=candidate: _size(recorded, c))  # type: ignore[misc]
            failed = sizes is None
        rows.append(Row(candidate, sizes, candidate.trial in front))
    return rows


def _size(recorded: RecordedNetworks, candidate: TrialRecord) -> Sizes:
    return sizes_of(recorded.student(candidate.params), recorded.image_size)


def _contenders(view: View, recorded: RecordedNetworks, networks: bool) -> list[Contender]:
    """The teacher, and the student in each way that it was trained."""
    sizes = None
    if networks and "teacher" in recorded.config:
        sizes = attempt(
            view.notes,
            "the teacher's size",
            lambda: sizes_of(recorded.teacher(), recorded.image_size),
        )
    teacher = contenders.teacher(view.run, recorded.config, sizes)
    if view.best is None:
        return [teacher]
    own = next((row.sizes for row in view.rows if row.candidate == view.best), None)
    return [teacher, *contenders.students(view.run, view.best.params, own)]


def _see_study(view: View, place: int, study: RankStudyRecord) -> None:
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

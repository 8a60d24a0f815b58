"""The view model of a report: everything that the template shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from diswot.data.dataset import Dataset
from diswot.errors import UserError
from diswot.reports import charts
from diswot.reports.comparison import (
    ComparedNetwork,
    compared_students,
    compared_teacher,
    shared_measure,
)
from diswot.reports.formats import basename, count
from diswot.reports.networks import (
    FeatureComparison,
    Sizes,
    attempt,
    compare_features,
    sizes_of,
)
from diswot.reports.predictions import DRAWINGS, PredictionComparison, recorded_predictions
from diswot.runs.rebuild import RecordedNetworks
from diswot.runs.records import RankStudyRecord, Run, SearchRecord, TrainingRecord, TrialRecord
from diswot.runs.verification import Verification, verification
from diswot.storage.run_files import DISTILLED
from diswot.tasks.registry import find_result, tested_task
from diswot.training.checkpoint import WEIGHTS
from diswot.utils.untrusted import Facts

MAX_ROWS = 100  # rows of the table of the best candidates
MAX_BUILT = 40  # networks built for MACs and depth in that table


@dataclass(frozen=True)
class CandidateRow:
    """A row of the table of the best candidates."""

    candidate: TrialRecord
    sizes: Sizes | None
    front: bool


@dataclass
class View:
    """Contents of the page; charts, and the reasons of missing ones, are by element id."""

    run: Run
    charts: dict[str, charts.Chart] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    best: TrialRecord | None = None
    headline: str = ""
    against: str = ""
    measure: str = ""
    compared: list[ComparedNetwork] = field(default_factory=list)
    rows: list[CandidateRow] = field(default_factory=list)
    features: list[FeatureComparison] = field(default_factory=list)
    predictions: PredictionComparison | None = None
    missing: dict[str, str] = field(default_factory=dict)
    verified: Verification | None = None


def build_view(run: Run, networks: bool) -> View:
    """Collect the values and charts for a run."""
    view = View(run, notes=list(run.notes))
    if run.search is not None:
        _add_search(view, run.search, networks)
    elif networks and run.trainings:
        _add_predictions(view, {}, run.trainings[0], None)
    rows = [each.result or each.history[-1] for each in run.trainings]
    results = [*map(find_result, rows), *(each.tested for each in view.compared)]
    view.measure = shared_measure(results)
    if run.trainings:
        shown = [training for training in run.trainings if training.history]
        view.charts["results"] = charts.result_by_epoch(shown, view.measure)
        view.charts["loss"] = charts.loss_by_epoch(shown)
    for place, study in enumerate(run.studies):
        _add_study(view, place, study)
    return view


def _add_search(view: View, search: SearchRecord, networks: bool) -> None:
    """Add the student, its teacher, the tables and the charts of a search."""
    ranked, view.best = search.scored(), search.best
    view.verified = verification(search.found)
    recorded = RecordedNetworks(search.config)
    if networks and "teacher" in search.config:
        _add_features(view, recorded)
    else:
        view.missing["features"] = "No network was built for this report."
        if networks:
            _add_predictions(view, search.config, _shown_training(view), None)
    view.rows = _rows(ranked, recorded if networks else None, view.notes)
    view.compared = _compared(view, recorded, networks)
    sizes = [row.sizes for row in view.rows] + [row.sizes for row in view.compared]
    if left_out := sorted({name for each in sizes if each for name in each.uncounted}):
        view.notes.append(f"MACs leave out operations without a formula: {', '.join(left_out)}")
    if ranked:
        view.against = _against_teacher(view.compared)
        view.headline = _headline(view, str(search.config.get("space", "unknown space")))
        view.charts["trials"] = charts.score_by_trial(search, view.best)
        for cost in search.costs():
            view.charts[f"against-{cost}"] = charts.score_by_cost(search, view.best, cost)
        if view.verified is not None:
            view.charts["verified"] = charts.accuracy_by_score(view.verified)
        try:
            view.charts["importance"] = charts.importance(search)
        except UserError as error:
            view.missing["importance"] = f"Not defined here: {error}"


def _add_features(view: View, recorded: RecordedNetworks) -> None:
    """Add the features of teacher and student, if networks and data can be built."""
    if view.best is None:
        view.missing["features"] = "No candidate has a score yet."
        return
    params, trained = view.best.params, _trained(view, recorded)
    notes: list[str] = []
    images = attempt(notes, "features", recorded.images)
    if images is not None:
        make = partial(compare_features, recorded, images, params, trained)
        view.features = attempt(notes, "features", make) or []
        _add_predictions(view, recorded.config, _shown_training(view), images)
    if notes:
        view.missing["features"] = "The features cannot be computed again: " + "; ".join(notes)
    for features in view.features:
        for who, matrix in (("teacher", features.teacher), ("student", features.student)):
            view.charts[f"{features.key}-{who}"] = charts.relation_heatmap(features, matrix, who)


def _add_predictions(
    view: View, config: Facts, training: TrainingRecord | None, images: Dataset | None
) -> None:
    """Add what teacher and student predict, if the task is drawn."""
    known = training.result if training else {}
    name = images.task if images is not None else tested_task(known)
    if name in DRAWINGS:
        make = partial(recorded_predictions, config, training, images)
        view.predictions = attempt(view.notes, DRAWINGS[name].name, make)


def _shown_training(view: View) -> TrainingRecord | None:
    """Return the training whose student is shown: the distillation, or else the first one."""
    if view.best is None:
        return None
    known = [
        training
        for training in view.run.trainings
        if training.weights and training.result.get("student") == view.best.params
    ]
    return min(known, key=lambda training: training.name != DISTILLED, default=None)


def _trained(view: View, recorded: RecordedNetworks) -> tuple[str, Path] | None:
    """Return the weights files of the teacher and of the student distilled from it."""
    assert view.best is not None
    place = view.run.folder / DISTILLED / WEIGHTS
    result = next((t.result for t in view.run.trainings if t.name == DISTILLED), {})
    weights = result.get("teacher_weights") or recorded.config.get("teacher_weights")
    same = result.get("student") == view.best.params
    same = same and result.get("teacher") == recorded.config.get("teacher")
    return (str(weights), place) if same and weights and place.is_file() else None


def _rows(
    ranked: list[TrialRecord], recorded: RecordedNetworks | None, notes: list[str]
) -> list[CandidateRow]:
    """Return the table of the best candidates; the first `MAX_BUILT` networks are built."""
    front = {c.trial for c in charts.pareto_candidates(ranked)}
    rows, failed = [], False
    for place, candidate in enumerate(ranked[:MAX_ROWS]):
        sizes = None
        if recorded is not None and place < MAX_BUILT and not failed:
            make = partial(_student_sizes, recorded, candidate)
            sizes = attempt(notes, "sizes of candidates", make)
            failed = sizes is None
        rows.append(CandidateRow(candidate, sizes, candidate.trial in front))
    return rows


def _student_sizes(recorded: RecordedNetworks, candidate: TrialRecord) -> Sizes:
    return sizes_of(recorded.student(candidate.params), recorded.image_shape)


def _compared(view: View, recorded: RecordedNetworks, networks: bool) -> list[ComparedNetwork]:
    """Return the comparison table: the teacher, then the student by each way of training."""
    sizes = None
    if networks and "teacher" in recorded.config:
        sizes = attempt(
            view.notes,
            "sizes of the teacher",
            lambda: sizes_of(recorded.teacher(), recorded.image_shape),
        )
    teacher = compared_teacher(view.run, recorded.config, sizes)
    if view.best is None:
        return [teacher]
    own = next((row.sizes for row in view.rows if row.candidate == view.best), None)
    return [teacher, *compared_students(view.run, view.best.params, own)]


def _headline(view: View, space: str) -> str:
    """Say what the student is: space, number of parameters, highest test result."""
    assert view.best is not None
    _, *students = view.compared
    sizes = next((student.sizes for student in students if student.sizes), None)
    kind, _, teacher = space.partition("subnet:")
    parts = [f"Sub-network of {basename(teacher)}" if teacher else f"Student of {basename(kind)}"]
    parts.append(f"{count(sizes.params if sizes else view.best.model_params)} params")
    results = [each.tested for each in students if each.tested is not None]
    if results:
        highest = max(results, key=lambda each: each.percent)
        kind = "" if highest.kind == "accuracy" else f" {highest.kind}"
        parts.append(f"{highest.percent:.2f} %{kind}")
    return ", ".join(parts)


def _against_teacher(compared: list[ComparedNetwork]) -> str:
    """Say how the student's highest test result stands to its teacher's; empty if not known."""
    teacher, *students = compared
    known = [each.percent for each in students if each.percent and each.result == teacher.result]
    if teacher.percent is None or not known:
        return ""
    points = max(known) - teacher.percent
    side = "above" if points > 0 else "below"
    return f"{abs(points):.2f} points {side} its teacher's {teacher.percent:.2f} %."


def _add_study(view: View, place: int, study: RankStudyRecord) -> None:
    """Add the charts of a rank study: tau of each score, and each score against the accuracy."""
    view.charts[f"taus-{place}"] = charts.tau_bars(study)
    if str(study.result.get("target")) in study.accuracies:
        for score in study.scores:
            view.charts[f"scatter-{place}-{score}"] = charts.accuracy_scatter(study, score)

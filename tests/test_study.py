"""The rank study's script, on four rows: that it still says all that scoring asks."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
TABLE = """blocks1,blocks2,blocks3,distilled_acc
1,1,1,61.9
1,1,3,69.0
1,3,1,64.0
3,1,1,63.5
"""


@pytest.mark.parametrize("settings", [{}, {"data": "digits", "classes": 10}])
def test_a_job_scores_its_table(
    settings: dict[str, object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.chdir(tmp_path)
    study = importlib.import_module("study")
    Path("s0.csv").write_text(TABLE)
    few = {"teacher": "resnet20", "batch_size": 4, "repeats": 2, **settings}
    job = study.Job("some", "s0.csv", "s0", ("diswot",), 1, 3, few)
    assert study.run(job, tmp_path)[:2] == ("some", 3)
    kept = study.scores(job)
    assert len(kept) == 3
    assert all(len(row.values["diswot"]) == 2 for row in kept.values())
    scores = {"diswot", "params", "macs", "depth", "size"}
    assert all(set(row.values) == scores for row in kept.values())


def test_curves_and_grid_show_their_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    plots = importlib.import_module("study_plots")
    line = plots.Line("kd", [1, 2, 4], [0.1, 0.2, 0.3], [0.01, 0.02, 0.03])
    figure = plots.curves(plots.Curves({"repeats": [line]}, {"params": 0.5}))
    drawn = plots.grid(plots.Grid("title", ["a", "b"], [[1, 0.25], [0.25, 1]]))

    assert list(figure.axes[0].lines[0].get_ydata()) == line.means
    assert [text.get_text() for text in drawn.axes[0].texts] == ["1.00", "0.25", "0.25", "1.00"]

"""The time of a search over its runs, by a watch that the test winds."""

from __future__ import annotations

import time
from datetime import datetime, timedelta

import optuna
import pytest
from optuna.trial import create_trial

from diswot.nas.elapsed import Stopwatch, runs, span


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What time it is, as its one number."""
    clock = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    return clock


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study()


def test_what_is_kept_on_the_way(now: list[float], study: optuna.Study) -> None:
    """At first at once, then when a second was lost, later a hundredth."""
    watch, kept = Stopwatch(study, now[0]), []
    for seconds in (2, 2.5, 3, 3.1, 1000, 1005, 1011):
        now[0] = 100.0 + seconds
        watch.look()
        kept += runs(study)

    assert kept == pytest.approx([2, 2, 2, 3.1, 1000, 1000, 1011])
    now[0] = 1112.0
    watch.stop()
    assert runs(study) == [1012]


def test_runs_add_up(now: list[float], study: optuna.Study) -> None:
    for seconds in (3, 5):
        watch = Stopwatch(study, now[0])
        now[0] += seconds
        watch.look()

    assert sorted(runs(study)) == [3, 5]


def test_a_run_that_did_nothing_does_not_count(now: list[float], study: optuna.Study) -> None:
    watch = Stopwatch(study, now[0])
    now[0] += 5
    watch.stop()

    assert runs(study) == []


def test_trials_of_which_no_run_tells(now: list[float], study: optuna.Study) -> None:
    """They were searched by an older version, or the run was killed too early."""
    noon = datetime(2026, 1, 1, 12)
    for seconds in (0, 2, 7):
        trial = create_trial(value=1.0)
        trial.datetime_start = noon + timedelta(seconds=seconds)
        trial.datetime_complete = noon + timedelta(seconds=seconds + 1.5)
        study.add_trial(trial)
    Stopwatch(study, now[0]).stop()
    assert runs(study) == [8.5] and span(study.trials) == 8.5

    watch = Stopwatch(study, now[0])
    now[0] += 3
    watch.look()
    assert sorted(runs(study)) == [3, 8.5]
    assert span([]) is None


def test_what_others_may_have_written(study: optuna.Study) -> None:
    for value in ("x", None, True, -1, float("nan"), float("inf"), [3], 4):
        study.set_user_attr(f"seconds:{value}", value)
    study.set_user_attr("other", 7)

    assert runs(study) == [4]

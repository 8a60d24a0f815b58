"""Scoring a table: averages, reasons, what is kept, what is resumed, several processes."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import toyspaces
from optuna.trial import BaseTrial
from torch import nn

from diswot.errors import SearchFailed, UserError
from diswot.executors import pool
from diswot.proxies.candidate import Candidate
from diswot.proxies.registry import PROXIES, Proxy
from diswot.proxies.scorer import scorer
from diswot.ranking.score_table import Scores, TableScorer, read_kept, score_table
from diswot.spaces.registry import enumerate_params

PROXY_NAMES = ("diswot", "params")
MANY = 2000


def space(trial: BaseTrial) -> nn.Module:
    """Five networks of which one cannot be built and one has no path."""
    kind = trial.suggest_int("kind", 0, 4)
    if kind == 3:
        raise RuntimeError("no such\nnetwork")
    model = toyspaces.student([nn.Conv2d(3, kind + 2, 3), nn.ReLU()], kind + 2)
    if kind == 4:
        model[2] = Zero()
    return model


class Zero(nn.Module):
    def forward(self, x: Any) -> Any:
        return (x.sum(1, keepdim=True) * 0).expand(-1, 6, -1, -1)


def make(repeats: int = 1) -> TableScorer:
    batches = [toyspaces.batch() for _ in range(repeats)]
    return scorer(toyspaces.teacher(), batches), space


def make_two() -> TableScorer:
    return make(2)


def make_killed() -> TableScorer:
    os._exit(9)


ROWS = {str(params["kind"]): params for params in enumerate_params(space, 9) or []}


def same(one: dict[str, Scores], other: dict[str, Scores]) -> bool:
    """Numbers and reasons, not the time; NaN equals NaN."""
    return {n: (repr(sorted(s.values.items())), s.reasons) for n, s in one.items()} == {
        n: (repr(sorted(s.values.items())), s.reasons) for n, s in other.items()
    }


def test_scores_are_those_of_one_student_alone() -> None:
    fixed, build = make_two()

    found = score_table(make_two, ROWS, PROXY_NAMES)

    expected = fixed.score(fixed.students(lambda: toyspaces_network(build, ROWS["1"])), PROXY_NAMES)
    assert found["1"].values == expected
    assert found["1"].mean("diswot") == pytest.approx(sum(expected["diswot"]) / 2)
    assert found["1"].error("diswot") == pytest.approx(
        abs(expected["diswot"][0] - expected["diswot"][1]) / 2
    )
    assert found["1"].seconds > 0


def toyspaces_network(build: Any, params: dict[str, Any]) -> nn.Module:
    from diswot.spaces.registry import build_network

    return build_network(build, params)


def test_what_fails_is_missing_and_what_is_cut_off_is_lowest() -> None:
    found = score_table(make_two, ROWS, PROXY_NAMES)

    assert math.isnan(found["3"].mean("diswot"))
    assert "RuntimeError: no such network" in found["3"].reasons["diswot"]
    assert found["4"].mean("diswot") == -math.inf
    assert "logits do not depend" in found["4"].reasons["diswot"]
    assert found["4"].mean("params") > 0
    assert math.isnan(found["4"].error("diswot"))


@pytest.mark.parametrize(
    ("values", "mean"),
    [
        ([1.0, 3.0], 2.0),
        ([1.0, -math.inf], -math.inf),
        ([-math.inf, math.nan], math.nan),
        ([1.0, math.inf], math.nan),
    ],
)
def test_means_of_what_is_not_finite(values: list[float], mean: float) -> None:
    assert Scores({"p": values}).mean("p") == pytest.approx(mean, nan_ok=True)


def test_of_a_single_repeat_there_is_no_standard_error() -> None:
    assert math.isnan(Scores({"p": [1.0]}).error("p"))
    assert math.isnan(Scores().mean("p"))


def test_what_is_kept_is_not_scored_again(tmp_path: Path) -> None:
    keep = tmp_path / "new" / "scores.jsonl"
    first = score_table(make_two, ROWS, PROXY_NAMES, keep=keep)
    reported: list[tuple[int, int]] = []

    again = score_table(
        make_killed, ROWS, PROXY_NAMES, keep=keep, on_row=lambda *row: reported.append(row)
    )

    assert same(first, again)
    assert reported == [(5, 5)]
    assert len(keep.read_text().splitlines()) == 5


def test_another_proxy_is_scored_alone(tmp_path: Path) -> None:
    keep = tmp_path / "scores.jsonl"
    first = score_table(make, ROWS, ["params"], keep=keep)
    both = score_table(make, ROWS, PROXY_NAMES, keep=keep)

    assert list(json.loads(keep.read_text().splitlines()[-1])["values"]) == ["diswot"]
    assert both["1"].values["params"] == first["1"].values["params"]
    assert same(both, score_table(make, ROWS, PROXY_NAMES))


def test_half_a_line_is_dropped_and_written_over(tmp_path: Path) -> None:
    keep = tmp_path / "scores.jsonl"
    whole = score_table(make, ROWS, PROXY_NAMES, keep=keep)
    for cut in (1, 10, len(keep.read_bytes().splitlines()[-1]) + 1):
        keep.write_bytes(keep.read_bytes()[:-cut])

        again = score_table(make, ROWS, PROXY_NAMES, keep=keep)

        assert same(again, whole)
        assert same(read_kept(keep), whole)


@pytest.mark.parametrize("line", ["{", "[]", '{"name": "1"}', '{"name": "1", "values": 3}', "\xff"])
def test_damaged_file_is_told(tmp_path: Path, line: str) -> None:
    keep = tmp_path / "scores.jsonl"
    keep.write_bytes(line.encode("latin1") + b"\n")

    with pytest.raises(UserError, match="line 1, is not what diswot writes"):
        score_table(make, ROWS, PROXY_NAMES, keep=keep)


def test_a_process_that_dies_is_told_and_what_is_done_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "STARTS", 1)
    keep = tmp_path / "scores.jsonl"
    some = {name: ROWS[name] for name in ("0", "1")}
    score_table(make, some, PROXY_NAMES, keep=keep)

    with pytest.raises(SearchFailed, match="a worker process ended too early"):
        score_table(make_killed, ROWS, PROXY_NAMES, keep=keep, workers=2)

    assert list(read_kept(keep)) == ["0", "1"]


class Deadly(nn.Module):
    def forward(self, x: Any) -> Any:
        os._exit(5)


def deadly(trial: BaseTrial) -> nn.Module:
    model = space(trial)
    if trial.params["kind"] == 1:
        model[2] = Deadly()
    return model


def make_deadly() -> TableScorer:
    return make_two()[0], deadly


def test_several_processes_find_the_same_but_of_what_kills_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "TRIES", 1)
    keep = tmp_path / "scores.jsonl"

    several = score_table(make_deadly, ROWS, PROXY_NAMES, keep=keep, workers=2)

    assert list(several) == list(ROWS)
    assert same(read_kept(keep), several)
    assert math.isnan(several["1"].mean("diswot"))
    assert several["1"].reasons["diswot"] == "its process died: exit status 5"
    others = {name: params for name, params in ROWS.items() if name != "1"}
    assert same(
        {name: several[name] for name in others}, score_table(make_two, others, PROXY_NAMES)
    )


def test_interrupted_it_keeps_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep = tmp_path / "scores.jsonl"
    seen: list[int] = []

    def score(candidate: Candidate) -> float:
        seen.append(1)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return 1.0

    monkeypatch.setitem(PROXIES, "toy", Proxy(score, "", ""))
    with pytest.raises(KeyboardInterrupt):
        score_table(make, ROWS, ["toy"], keep=keep)

    assert list(read_kept(keep)) == ["0", "1"]


def traced(folder: Path, trial: BaseTrial) -> nn.Module:
    """Build a network, and leave a file behind."""
    (folder / str(trial.suggest_int("number", 0, MANY - 1))).touch()
    return toyspaces.student([nn.Conv2d(3, 2, 3), nn.ReLU()], 2)


def make_traced(folder: Path) -> TableScorer:
    return make()[0], partial(traced, folder)


def test_stopping_with_processes_does_not_wait_for_the_rest(tmp_path: Path) -> None:
    many = {str(number): {"number": number} for number in range(MANY)}
    threads = threading.active_count()

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_table(partial(make_traced, tmp_path), many, PROXY_NAMES, workers=2, on_row=stop)

    assert threading.active_count() == threads and not multiprocessing.active_children()
    assert 2 <= len(list(tmp_path.iterdir())) <= 4  # two are done, and each worker has one more


def test_mistakes_are_told() -> None:
    with pytest.raises(UserError, match="unknown proxy 'dizwot'"):
        score_table(make, ROWS, ["dizwot"])


def leaving(trial: Any) -> nn.Module:
    raise SystemExit("no such network")


def test_a_space_that_leaves_is_a_missing_score() -> None:
    found = score_table(lambda: (make_two()[0], leaving), {"1": ROWS["1"]}, PROXY_NAMES)
    assert math.isnan(found["1"].mean("diswot"))
    assert "SystemExit: no such network" in found["1"].reasons["diswot"]

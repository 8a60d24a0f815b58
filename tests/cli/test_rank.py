"""`diswot rank`: its contract, from a table to files and back."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from commands import Run, call
from scipy import stats
from shapes import shapes

from diswot.costs.counts import count_params
from diswot.models import registry
from diswot.ranking import score_table
from diswot.ranking.score_columns import read_score_columns
from diswot.reports import plots
from diswot.runs import folder
from diswot.spaces.registry import build_network, create_space
from diswot.utils.state_dicts import save_weights

ROOT = Path(__file__).parents[2]
OPTIONS = "--teacher resnet20 --classes 10 --batch-size 4 --image-size 8 --resamples 20"
ALONE = f"{OPTIONS} --no-out"  # without a folder no plots are drawn
ROWS = [(1, 1, 1, 60.0, 62), (3, 1, 1, 61.5, 64), (1, 3, 1, 62.0, 63), (1, 1, 3, 62.5, 66)]
ROWS += [(3, 3, 1, 63.0, 66.5), (5, 1, 1, 62.0, 65), (3, 3, 3, 64.0, 69), (7, 7, 7, 65.0, 71)]
TAU = "kendall"
BASELINES = {"params", "macs", "depth", "size"}
INITS = ("gaussian", "kaiming", "default")
CELLS = [
    f"|{first}~0|+|none~0|nor_conv_3x3~1|+|none~0|none~1|{last}~2|"
    for first, last in [
        ("avg_pool_3x3", "nor_conv_3x3"),
        ("avg_pool_3x3", "nor_conv_1x1"),
        ("nor_conv_3x3", "avg_pool_3x3"),
    ]
]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.csv"
    lines = ["blocks1,blocks2,blocks3,vanilla_acc,distilled_acc"]
    lines += [",".join(map(str, row)) for row in ROWS]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def without_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "save", lambda figure, path: [])


def params() -> list[int]:
    build = create_space("s0", 10)
    names = ("blocks1", "blocks2", "blocks3")
    return [count_params(build_network(build, dict(zip(names, row, strict=False)))) for row in ROWS]


def test_inherited_from_a_trained_teacher(run: Run, tmp_path: Path, table: Path) -> None:
    """The teacher's own architecture agrees best."""
    weights = tmp_path / "w.safetensors"
    save_weights(registry.create_teacher("resnet20", 10, 8), weights)
    line = f"rank --table {table} {ALONE} --teacher-weights {weights} --json"
    line += " --proxies agreement,relation,naswot --init inherited"
    assert run(f"{line} --scores {tmp_path / 'scores'}").json["n"] == 8
    found = read_score_columns(tmp_path / "scores")

    own = [params == {"blocks1": 3, "blocks2": 3, "blocks3": 3} for params in found.architectures]
    assert own.count(True) == 1
    for name in ("agreement", "relation"):
        assert [value == 0 for value in found.scores[name]] == own
        assert max(found.scores[name]) == 0


def test_json(run: Run, table: Path) -> None:
    found = run(f"rank --table {table} {ALONE} --proxies diswot,kd --json").json

    assert found["target"] == "distilled_acc" and found["n"] == 8
    assert found["rows"].keys() == {*BASELINES, "diswot", "kd", "vanilla"}
    expected = stats.kendalltau(params(), [row[4] for row in ROWS]).statistic
    row = found["rows"]["params"]
    assert row[TAU] == pytest.approx(expected)
    assert row["n"] == 8 and row["missing"] == 0
    low, high = row["kendall_interval"]
    assert low <= row[TAU] <= high
    keys = {"spearman", "pearson", "precision_top10", "regret", "kendall_given_params"}
    assert {*keys, "kendall_within_deciles"} <= row.keys()
    assert row["kendall_given_params"] is None
    vanilla = stats.kendalltau([row[3] for row in ROWS], [row[4] for row in ROWS]).statistic
    assert found["rows"]["vanilla"][TAU] == pytest.approx(vanilla)


def test_table_shows_the_best_first_and_says_what_ties(run: Run, table: Path) -> None:
    ran = run(f"rank --table {table} {ALONE} --seed-sd 0.3")

    assert ran.status == 0
    places = [ran.out.index(name) for name in ("params ", "depth ", "ceiling ")]
    assert places == sorted(places)
    assert "tau-b" in ran.out and "lost %" in ran.out
    assert "depth: " in ran.err and "pairs tied" in ran.err
    assert run(f"rank --table {table} {ALONE} --quiet").err == ""


def test_a_default_teacher_is_named_where_a_score_looks_at_it(run: Run, table: Path) -> None:
    line = f"rank --table {table} {ALONE.replace('--teacher resnet20', '')} --limit 3 --proxies"

    assert "the teacher is resnet56 with fresh weights" in run(f"{line} relation").err
    assert "the teacher is" not in run(f"{line} params").err


def test_target_is_known_before_anything_is_scored(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_table, "score_table", pytest.fail)
    (tmp_path / "t.csv").write_text("blocks1,blocks2,blocks3,acc\n1,1,1,60\n3,1,1,61\n1,3,1,62\n")

    said = run(f"rank --table {tmp_path}/t.csv {OPTIONS} --target x --out {tmp_path}/run").mistake()

    assert "unknown target 'x'; known: acc" in said and not (tmp_path / "run").exists()


def test_errors_and_failed_trainings(run: Run, tmp_path: Path) -> None:
    """An error is turned round once, also when the scores are read again."""
    lines = [f"{i},{','.join(map(str, row[:3]))},{100 - row[4]}" for i, row in enumerate(ROWS)]
    lines[0] = lines[0].replace(",38", ",-1")
    (tmp_path / "t.csv").write_text("\n".join(["id,blocks1,blocks2,blocks3,top1_error", *lines]))
    line = f"rank --table {tmp_path}/t.csv {ALONE} --proxies params --scores {tmp_path}/s.csv"

    ran = run(line)
    assert "top1_error is an error in percent: 100 - top1_error is ranked" in ran.err
    assert "100-top1_error: 1 values that cannot be accuracies count as missing" in ran.err
    found = run(f"{line} --target top1_error --json").json
    again = run(f"rank --from {tmp_path}/s.csv --resamples 50 --json").json
    expected = stats.kendalltau(params()[1:], [row[4] for row in ROWS[1:]]).statistic
    for each in (found, again):
        assert each["target"] == "100-top1_error" and each["rows"]["params"]["missing"] == 1
        assert each["rows"]["params"][TAU] == pytest.approx(expected)


def test_several_accuracies_ask_for_one(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_table, "score_table", pytest.fail)
    (tmp_path / "t.csv").write_text("blocks1,blocks2,blocks3,c10,c100\n1,1,1,90,60\n3,1,1,91,61\n")
    said = run(f"rank --table {tmp_path}/t.csv {ALONE}").mistake()
    assert said.startswith("several columns may be the accuracy") and said.endswith(": c10, c100")


def test_rank_study_is_no_search(run: Run, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"config": {"table": "t.csv", "space": "s0"}}')

    for line in (f"distill {tmp_path} --teacher none", f"export {tmp_path}"):
        assert f"{tmp_path} holds a rank study, not a search" in run(line).mistake()


def test_no_teacher_is_built_that_no_score_needs(
    run: Run, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = f"rank --table {table} {ALONE} --json --proxies zen,naswot,params"
    beside = run(f"{line},relation").json["rows"]
    monkeypatch.setattr(registry, "create_teacher", lambda *a, **k: pytest.fail("built"))

    alone = run(line.replace("--teacher resnet20", ""))
    named = run(f"{line} --teacher broken.py:f")

    assert alone.json["rows"].keys() == {*BASELINES, "zen", "naswot", "vanilla"}
    assert alone.json["rows"] == {name: beside[name] for name in alone.json["rows"]}
    assert named.json["rows"] == alone.json["rows"]


def test_another_target(run: Run, table: Path) -> None:
    line = f"rank --table {table} {ALONE} --proxies params"
    found = run(f"{line} --target vanilla_acc --json").json

    assert found["rows"].keys() == BASELINES
    expected = stats.kendalltau(params(), [row[3] for row in ROWS]).statistic
    assert found["rows"]["params"][TAU] == pytest.approx(expected)
    said = run(f"{line} --target vanila_acc").mistake()
    assert "unknown target 'vanila_acc'; did you mean vanilla_acc" in said


@pytest.mark.usefixtures("without_plots")
def test_rows_by_condition_and_networks_that_are_there_twice(run: Run, tmp_path: Path) -> None:
    """A network with two trainings is scored once, and counts twice."""
    trained = [("resnet18", "b", 70), ("resnet18", "a", 71), ("resnet34", "a", 74)]
    trained += [("resnet10t", "b", 65), ("resnet34", "b", 73)]
    lines = [f"{model},{tag},{acc}" for model, tag, acc in trained]
    (tmp_path / "t.csv").write_text("\n".join(["model,tag,top1", *lines]))
    line = f"rank --table {tmp_path}/t.csv --space timm_zoo {OPTIONS} --proxies params --json"

    whole = run(f"{line} --out {tmp_path}/run").json
    assert whole["n"] == 5 and whole["rows"]["params"]["tied"] == pytest.approx(0.2)
    assert len((tmp_path / "run" / "scores.jsonl").read_text().splitlines()) == 3
    some = run(f"{line} --where tag=b --out {tmp_path}/run --resume").json
    assert some["n"] == 3 and some["rows"]["params"][TAU] == 1
    assert "--where chooses rows of a --table" in run("rank --from x.csv --where a=b").mistake()


def test_run_folder_and_resume(run: Run, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "run"
    line = f"rank --table {table} {OPTIONS} --out {out}"
    first = run(f"{line} --proxies diswot --limit 5 --json").json
    names = {"run.json", "rank.json", "scores.csv", "scores.jsonl"}
    pictures = {f"{name}.{kind}" for name in ("tau", "scores") for kind in ("svg", "png")}

    assert {path.name for path in out.iterdir()} == names | pictures
    assert json.loads((out / "rank.json").read_text()) == first
    assert first["n"] == 5
    assert "add --resume" in run(line).mistake()
    said = run(f"{line} --resume --batch-size 8").mistake()
    assert "has batch_size = 4, not 8" in said

    kept = (out / "scores.jsonl").read_text()
    whole = run(f"{line} --resume --json --proxies diswot,semantic,relation,kd").json
    assert whole["n"] == 8 and "kd" in whole["rows"]
    assert (out / "scores.jsonl").read_text().startswith(kept)
    fresh = run(f"rank --table {table} {ALONE} --proxies diswot,semantic,relation,kd --json").json
    assert fresh["rows"] == whole["rows"]


@pytest.mark.usefixtures("without_plots")
def test_without_a_folder_it_is_kept_in_one_that_is_free(
    run: Run, table: Path, tmp_path: Path
) -> None:
    line = f"rank --table {table} {OPTIONS} --proxies params --scores {tmp_path}/s.csv"
    first, again = run(line), run(f"rank --from {tmp_path}/s.csv")
    out = tmp_path / "runs" / f"{table.stem}-rank-1"
    assert f"kept in {out}: rank.json, scores.csv and plots" in first.err
    assert run(f"{line} --out {out} --resume --quiet").status == 0
    left_out = run(f"{line} --no-out")
    assert "not kept: --no-out was given" in left_out.err and "kept" not in again.err
    assert [*out.parent.iterdir()] == [out]
    assert run(f"{line} --no-out --out x").mistake() == "give --out or --no-out, not both"


@pytest.mark.usefixtures("without_plots")
def test_a_normalisation_is_resumed(run: Run, table: Path, tmp_path: Path) -> None:
    line = f"rank --table {table} {OPTIONS} --proxies kd --mean 0.5 --std 0.25,0.5,0.5"
    first = run(f"{line} --out {tmp_path / 'run'} --json").json

    assert run(f"{line} --out {tmp_path / 'run'} --resume --json").json == first
    other = run(f"{line} --out {tmp_path / 'run'} --resume --mean 0.25").mistake()
    means = "[0.5, 0.5, 0.5], not [0.25, 0.25, 0.25]"
    assert other == f"the rank study in {tmp_path / 'run'} has mean = {means}"


def test_folder_of_a_search_is_not_taken(run: Run, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    search = "search --teacher resnet20 --data noise --batch-size 4 --image-size 8 --trials 1"
    assert run(f"{search} --out {out}").status == 0

    said = run(f"rank --table {table} {OPTIONS} --out {out} --resume").mistake()

    assert said.endswith(f"{out} holds a search; name another folder")


def test_folder_of_a_rank_study_is_not_taken_by_a_search(run: Run, tmp_path: Path) -> None:
    folder.begin_rank_study(tmp_path, {"table": "rows.csv"}, resume=False)
    search = "search --teacher resnet20 --data noise --batch-size 4 --image-size 8 --trials 1"
    for resume in ("", " --resume"):
        said = run(f"{search} --out {tmp_path}{resume}").mistake()
        assert said.endswith(f"{tmp_path} holds a rank study; name another folder")
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_scores_are_read_again_without_scoring(
    run: Run,
    table: Path,
    tmp_path: Path,
) -> None:
    scores = tmp_path / "scores.csv"
    line = f"--proxies diswot,kd --resamples 50 --json --scores {scores}"
    first = run(f"rank --table {table} {ALONE} --repeats 2 {line}").json

    with scores.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8 and json.loads(rows[0]["architecture"]) == {
        "blocks1": 1,
        "blocks2": 1,
        "blocks3": 1,
    }
    assert float(rows[0]["distilled_acc"]) == 62 and float(rows[0]["kd_se"]) > 0
    again = run(f"rank --from {scores} --resamples 50 --json").json
    assert again["rows"] == first["rows"]
    other = run(f"rank --from {scores} --target vanilla_acc --json").json
    assert other["rows"]["params"][TAU] != again["rows"]["params"][TAU]


def test_each_row_with_its_own_initialisation_or_the_given_one(run: Run, tmp_path: Path) -> None:
    """Cells with gaps, which depend on the weights."""
    table, path = tmp_path / "cells.csv", tmp_path / "scores.csv"
    table.write_text("arch,accuracy\n" + "".join(f"{cell},{i}\n" for i, cell in enumerate(CELLS)))

    def columns(proxies: str, *options: str) -> dict[str, list[float]]:
        line = f"rank --table {table} --space nasbench201 {ALONE} --scores {path} --quiet"
        assert run(line, "--proxies", proxies, *options).status == 0
        with path.open() as file:
            rows = list(csv.DictReader(file))
        return {name: [float(row[name]) for row in rows] for name in proxies.split(",")}

    own = columns("diswot,default,params")
    given = {init: columns("diswot,default,params", "--init", init) for init in INITS}

    assert own["diswot"] == given["gaussian"]["diswot"] == columns("diswot")["diswot"]
    assert own["default"] == given["kaiming"]["default"] == columns("default")["default"]
    assert all(own["params"] == other["params"] for other in given.values())
    for name in ("diswot", "default"):
        for i in range(len(CELLS)):
            assert len({given[init][name][i] for init in INITS}) == len(INITS)


@pytest.mark.slow
def test_workers_find_the_same(run: Run, table: Path) -> None:
    line = f"rank --table {table} {ALONE} --json --proxies diswot"

    several = run(f"{line} --workers 2 --devices cpu,cpu").json
    assert several["rows"] == run(line).json["rows"]


def test_interrupted_and_resumed(table: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "run"
    slow = f"rank --table {table} {OPTIONS} --repeats 3 --out {out} --proxies all --quiet"
    command = [sys.executable, "-m", "diswot", *slow.split()]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not (out / "scores.jsonl").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()

    assert process.returncode == 130 and "--resume continues" in said
    kept = (out / "scores.jsonl").read_text()
    assert 1 <= len(kept.splitlines()) < 8
    assert not (out / "rank.json").exists()


@pytest.mark.usefixtures("without_plots")
def test_killed_it_loses_no_row(table: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "run"
    line = f"rank --table {table} {OPTIONS} --repeats 2 --out {out} --proxies kd,zico"
    command = [sys.executable, "-m", "diswot", *line.split()]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while not (out / "scores.jsonl").exists():
            assert process.poll() is None
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    kept = (out / "scores.jsonl").read_bytes()

    whole = run(f"{line} --resume --json").json

    assert whole["n"] == 8 and whole["rows"]["kd"]["missing"] == 0
    assert (out / "scores.jsonl").read_bytes().startswith(kept[: kept.rfind(b"\n") + 1])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("rank", "name either a --table to score, or the scores to read with --from"),
        ("rank --table {t} --from {t}", "name either a --table to score"),
        ("rank --table {t}.gone", "gone"),
        ("rank --table {t} --space nasbench201", "table.csv"),
        ("rank --table {t} --space s1", "unknown space 's1'"),
        ("rank --table {t} --proxies dizwot", "unknown proxy 'dizwot'; did you mean diswot"),
        ("rank --table {t} --limit 2", "--limit"),
        ("rank --table {t} --workers 0", "--workers"),
        ("rank --table {t} --seed-sd -1", "--seed-sd"),
        ("rank --from {t}", "is not a file of scores that diswot rank wrote"),
        ("rank --from {t}.gone", "cannot read"),
        ("rank --from {t} --limit 50", "--limit chooses rows of a --table, not of the scores"),
    ],
)
def test_mistakes(run: Run, table: Path, line: str, said: str) -> None:
    assert said in run(f"{line.format(t=table)} --quiet").mistake()


def test_help_names_what_there_is() -> None:
    ran = call("rank --help")
    words: list[Any] = ["--table", "--space", "--teacher", "--data", "--proxies", "--target"]
    words += ["--limit", "--repeats", "--seed", "--out", "--json", "--scores", "--workers"]

    assert ran.status == 0 and all(word in ran.out for word in words)


def test_a_table_of_networks_for_segmentation(run: Run, tmp_path: Path) -> None:
    """The architectures are the table's, the images and masks a folder's."""
    least = "16-16-1-1-16-1-1-1-16-16-1-1-1-1-16-16-16-1-1-1-1-1-16-16-16-16-16"
    wider = [least, *(least.replace("16-16-1", stem, 1) for stem in ("32-16-1", "64-64-1"))]
    rows = ["embedding,seg,video", *(f"{each},{40 + 2 * i},5" for i, each in enumerate(wider))]
    (tmp_path / "table.csv").write_text("\n".join(rows))
    data = shapes(tmp_path / "shapes", 6, 4)
    chosen = f"--table {tmp_path}/table.csv --space nasbench_mr_seg --target seg --data {data}"
    scores = "--task segmentation --proxies default,relation,stage_entropy --batch-size 4"
    teacher = f"--teacher {ROOT}/examples/shapes.py:teacher --resamples 20 --no-out"
    found = run(f"rank {chosen} {scores} {teacher} --json").json

    assert found["target"] == "seg" and found["n"] == 3
    assert {"default", "relation", "stage_entropy", *BASELINES} <= found["rows"].keys()
    assert found["rows"]["params"][TAU] == 1
    wrong = f"rank --table {tmp_path}/table.csv --space nasbench_mr_seg --target seg"
    refused = run(f"{wrong} --data noise --task segmentation").mistake()
    assert "for classification, not for segmentation" in refused

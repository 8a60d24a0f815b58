"""Budgets, objectives and fronts on the command line."""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from commands import Run

from diswot.cli import budgets, main
from diswot.cli.options import BudgetOptions
from diswot.cli.subject import subject_of
from diswot.cli.training_options import SubjectOptions
from diswot.costs import timing
from diswot.costs.budget import Costs
from diswot.errors import UserError
from diswot.executors import processes
from diswot.executors.inline import Inline
from diswot.executors.protocol import Executor, Make
from diswot.models.registry import create_teacher
from diswot.nas import compute
from diswot.reports.report import report
from diswot.runs import folder
from diswot.spaces.registry import build_network, create_space
from diswot.utils.units import show_seconds

SMALL = "--teacher resnet20 --data digits --image-size 8 --batch-size 8 --proxy diswot"
FRONT = f"search {SMALL} --objectives score,latency --trials 3 --max-params 0.5M"

ODD = """
import torch
from torch import nn

class Fourier(nn.Module):
    def forward(self, images):
        return torch.fft.fft2(images).abs()

def space(trial, classes):
    width = trial.suggest_int("width", 4, 6)
    body = [Fourier(), nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 64, 1)]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))
"""


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A space whose networks have an operation without a formula."""
    path: Path = tmp_path_factory.mktemp("odd") / "odd.py"
    path.write_text(ODD)
    return f"{path}:space"


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search for a front, by measured latency; not to be changed."""
    out: Path = tmp_path_factory.mktemp("front") / "run"
    main([*shlex.split(FRONT), "--max-latency", "1s", "--out", str(out), "--quiet"])
    return out


@pytest.fixture
def measured_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latency is measured in this process, and briefly."""

    @contextmanager
    def here(makes: Sequence[Make], workers: int, **limits: Any) -> Iterator[Executor]:
        yield Inline(makes[0]())

    monkeypatch.setattr(processes, "process_pool", here)
    monkeypatch.setattr(compute, "process_pool", here)
    monkeypatch.setattr(timing, "SECONDS", 0.02)
    monkeypatch.setattr(timing, "MOST_SECONDS", 0.02)


def test_a_search_says_that_no_more_students_fit(run: Run) -> None:
    """Of the 64 students of S0 three have at most 100K parameters."""
    line = "search --teacher resnet20 --data digits --image-size 8 --batch-size 8 --proxy params"
    ran = run(f"{line} --space s0 --trials 50 --max-params 0.1M")

    reason = "the last 50 proposals were known, and the sampler has no others"
    assert f"stopped with 3 students scored of 50 asked: {reason}\n" in ran.err
    assert "best of 5 students (3 scored, 2 reused, 109 rejected, 0 failed)" in ran.out


def test_a_front_is_kept_with_its_latencies_and_plots(front: Path) -> None:
    found = json.loads((front / "found.json").read_text())

    assert found["objectives"] == ["score", "latency"] and found["best"] == found["front"][0]
    points = [(row["score"], row["latency"]) for row in found["front"]]
    assert points == sorted(points, reverse=True)
    assert all(0 < row["latency"] < 1 and row["model_params"] <= 5e5 for row in found["top"])
    page = report(front, front.parent / "page.html", networks=False).read_text()
    ratio = found["teacher_latency"] / found["best"]["latency"]
    assert 0 < found["teacher_latency"] < 1 and f", {ratio:.2g} times as long" in page
    setting = found["latency_setting"]
    assert (setting["engine"], setting["threads"], setting["image_shape"]) == (
        "torch",
        1,
        [3, 8, 8],
    )
    config = json.loads((front / "run.json").read_text())["config"]
    assert config["latency_engine"] == "torch"
    measured = [json.loads(line) for line in (front / "latency.jsonl").read_text().splitlines()]
    known = {json.dumps(row["params"]): row["timing"]["high"] for row in measured}
    assert all(known[json.dumps(row["params"])] == row["latency"] for row in found["top"])
    assert {"front.svg", "front.png"} <= {path.name for path in front.iterdir()}
    for row in found["top"]:
        counts = Costs(build_network(create_space("s0", 10), row["params"]), (3, 8, 8)).counts
        assert (row["macs"], row["memory"], row["uncounted"]) == (counts.macs, counts.memory, [])


@pytest.mark.usefixtures("measured_here")
def test_a_front_is_resumed_and_shown_as_a_table(run: Run, front: Path) -> None:
    before = json.loads((front / "found.json").read_text())

    ran = run(f"{FRONT} --max-latency 1s --out {front} --resume")

    assert ran.status == 0
    assert "front of score, latency of 3 students" in ran.out
    assert all(word in ran.out for word in ("params", "MACs", "memory", "latency", "ms"))
    assert "latency of one image: torch on cpu, 1 thread, float32, channels-last" in ran.err
    lines = (front / "latency.jsonl").read_text().splitlines()
    timing = next(
        row["timing"] for row in map(json.loads, lines) if row["params"] == before["best"]["params"]
    )
    low, high = (show_seconds(timing[end]) for end in ("low", "high"))
    assert (
        f"the best student's 95 % interval is {low} to {high}, of {timing['runs']} runs" in ran.err
    )
    assert json.loads((front / "found.json").read_text())["front"] == before["front"]


@pytest.mark.usefixtures("measured_here")
def test_another_setting_is_not_resumed(run: Run, front: Path) -> None:
    line = f"{FRONT} --max-latency 1s --out {front} --resume --latency-threads 2"

    assert "latency_clock = 'processor time" in run(line).mistake()


def test_distill_takes_the_best_of_the_front_or_another_by_its_number(front: Path) -> None:
    found = json.loads((front / "found.json").read_text())

    assert (
        json.loads(subject_of(front, SubjectOptions(teacher="none")).student)
        == found["best"]["params"]
    )
    for place, row in enumerate(found["front"]):
        listed = folder.numbered_student(front, str(place))
        assert listed is not None and json.loads(listed) == row["params"]
    for number in ("99", "-1"):
        last = len(found["front"]) - 1
        with pytest.raises(UserError, match=f"lists students 0 to {last}, not {number}$"):
            folder.numbered_student(front, number)
    assert folder.numbered_student(front, "9" * 5000) == "9" * 5000
    assert (
        folder.numbered_student(None, "3") == "3"
        and folder.numbered_student(front, "resnet20") == "resnet20"
    )
    with pytest.raises(UserError, match="no finished search to take student 1 from"):
        folder.numbered_student(front.parent, "1")


def test_distilling_another_keeps_it_under_its_number(run: Run, front: Path) -> None:
    last = len(json.loads((front / "found.json").read_text())["front"]) - 1
    train = "--teacher none --epochs 1 --batch-size 256 --precision fp32"

    ran = run(f"distill {front} --student {last} {train} --json")

    assert ran.json["out"] == str(front / f"alone-{last}")
    assert (front / f"alone-{last}" / "student.safetensors").is_file()


def test_what_is_not_counted_is_said(run: Run, odd: str, tmp_path: Path) -> None:
    line = f"search {SMALL} --space {odd} --trials 3 --out {tmp_path / 'run'}"

    assert "operations without a formula, which the MACs leave out: _fft_c2c" in run(line).err
    page = Path(run(f"report {tmp_path / 'run'} --json").json["report"]).read_text()
    assert "MACs leave out operations without a formula: _fft_c2c" in page
    card = Path(run(f"export {tmp_path / 'run'} --format torch --json").json["files"][-1])
    assert "| operations that the MACs leave out | `_fft_c2c` |" in card.read_text()
    found = json.loads((tmp_path / "run" / "found.json").read_text())
    assert found["best"]["uncounted"] == ["_fft_c2c"]


def test_a_users_space_is_measured(run: Run, odd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budgets, "teacher_latency", lambda *given: None)

    found = run(f"search {SMALL} --space {odd} --trials 1 --max-latency 1s --json").json

    assert found["scored"] == 1 and all(0 < row["latency"] < 1 for row in found["top"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--max-latency 8", "--max-latency: '8' is no time with its unit, such as 8ms"),
        ("--max-memory 64Mb/s", "--max-memory: '64Mb/s' is no size such as 64MB"),
        ("--max-params 5MB", "--max-params: '5MB' is no number such as 400000"),
        ("--max-macs 300X", "--max-macs: '300X' is no number"),
        ("--objectives score,flops", "unknown objective 'flops'; known: latency, macs, memory"),
        ("--objectives latency", "the objectives must be score and costs, each once"),
        ("--objectives score,macs --sampler evolution", "evolution has one objective"),
        ("--latency-engine onx", "unknown latency engine 'onx'; did you mean onnx"),
        ("--latency-threads 0", "latency needs at least one thread, not 0"),
    ],
)
def test_mistakes(run: Run, options: str, message: str) -> None:
    assert message in run(f"search {SMALL} --trials 64 {options}").mistake()


def test_no_student_fits_the_memory(run: Run, odd: str) -> None:
    line = f"search {SMALL} --space {odd} --trials 3 --max-memory 1KB"

    assert "no student fits the budget" in run(line).mistake()


SCORE = "score --proxies params --teacher resnet20 --data digits --image-size 8 --batch-size 8"


@pytest.mark.usefixtures("measured_here")
def test_a_score_comes_with_what_the_student_costs(run: Run) -> None:
    printed = run(f"{SCORE} --student resnet20 --latency --json").json

    costs = Costs(create_teacher("resnet20", 10), (3, 8, 8))
    assert printed["costs"]["model_params"] == costs.params == printed["scores"]["params"]
    for name in ("macs", "memory"):
        assert printed["costs"][name] == getattr(costs.counts, name)
    assert printed["costs"]["uncounted"] == [] and 0 < printed["costs"]["latency"] < 1
    assert printed["latency_setting"]["clock"] == "processor time of the thread"
    unasked = run(f"{SCORE} --student resnet20 --json").json
    assert unasked["costs"] == {**printed["costs"], "latency": None}
    assert unasked["latency_setting"] is None


def test_costs_are_told_beside_the_table_of_scores(run: Run, odd: str) -> None:
    ran = run(f"{SCORE} --space {odd} --student", '{"width": 4}')

    assert "operations without a formula, which the MACs leave out: _fft_c2c" in ran.err
    words = " ".join(ran.out.split())
    assert " params, " in words and " MACs, " in words and "B memory" in words


def test_objectives_are_refused_before_anything_is_read(run: Run) -> None:
    said = run("search --data nowhere --objectives latency").mistake()
    assert said == "the objectives must be score and costs, each once, as score,latency"


def test_limits_as_they_are_written() -> None:
    limits = budgets.budget(
        BudgetOptions(max_params="5M", max_macs="300M", max_memory="64MB", max_latency="8ms")
    ).limits

    assert limits == {"params": 5e6, "macs": 3e8, "memory": 64e6, "latency": 0.008}
    assert list(limits) == ["params", "macs", "memory", "latency"]
    assert budgets.budget(BudgetOptions()).limits == {}


@pytest.mark.slow
def test_onnx_runtime_measures(run: Run) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    line = f"search {SMALL} --objectives score,latency --trials 2 --latency-engine onnx --json"

    found = run(line).json

    assert found["latency_setting"]["engine"] == "onnx"
    assert all(0 < row["latency"] < 1 for row in found["front"])


@pytest.mark.slow
def test_the_dashboard_shows_the_study_as_it_is(front: Path) -> None:
    """Its objectives, and for each trial whether it is within the budget."""
    pytest.importorskip("optuna_dashboard")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = "from optuna_dashboard._cli import main; main()"
    journal = str(front / "study.journal")
    options = ["--host", "127.0.0.1", "--port", str(port), "--server", "wsgiref"]
    command = [sys.executable, "-c", code, journal, *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            api = f"http://127.0.0.1:{port}/api/studies"
            (study,) = _fetch(api)["study_summaries"]
            shown = _fetch(f"{api}/{study['study_id']}")
        finally:
            server.terminate()
    assert [study["study_name"], study["directions"]] == ["diswot", ["maximize", "minimize"]]
    trials = shown["trials"]
    assert len(trials) >= 3
    for trial in trials:
        within = all(value <= 0 for value in trial["constraints"])
        assert len(trial["constraints"]) in (1, 2)
        assert within == (trial["state"] == "Complete")
    found = json.loads((front / "found.json").read_text())
    best = {trial["trial_id"] for trial in shown["best_trials"]}
    assert {row["trial"] for row in found["front"]} <= {
        t["number"] for t in trials if t["trial_id"] in best
    }


def _fetch(url: str) -> Any:
    """Wait for the server for a minute."""
    for _ in range(300):
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.URLError:
            time.sleep(0.2)
    raise TimeoutError(url)


@pytest.mark.slow
def test_the_example_finds_a_front_and_trains_one_of_it(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "examples" / "latency.py"
    command = [sys.executable, str(script), "--out", str(tmp_path / "run")]

    ran = subprocess.run(command, capture_output=True, text=True)

    assert ran.returncode == 0, ran.stderr
    found = json.loads((tmp_path / "run" / "found.json").read_text())
    assert len(found["front"]) > 1
    assert all(row["latency"] <= 0.02 and row["model_params"] <= 6e5 for row in found["top"])
    middle = len(found["front"]) // 2
    trained = json.loads((tmp_path / "run" / f"alone-{middle}" / "trained.json").read_text())
    assert trained["result"]["student"] == found["front"][middle]["params"]


def test_missing_onnx_runtime_is_told_before_the_search(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    said = "--latency-engine onnx: needs onnxruntime: pip install 'diswot[onnx]'"

    assert said in run(f"search {SMALL} --max-latency 8s --latency-engine onnx").mistake()

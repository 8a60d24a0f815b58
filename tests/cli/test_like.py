"""The costs of a named network as the limits of a search."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from commands import Run

from diswot.cli import budgets
from diswot.cli.like import measured
from diswot.costs.counts import count_macs, count_params
from diswot.costs.latency import Setting
from diswot.data.registry import create_dataset
from diswot.models.registry import create_teacher
from diswot.runs.read import load_run

SMALL = "--teacher resnet20 --data digits --image-size 8 --batch-size 8 --proxy params"
LINE = f"search {SMALL} --trials 4"

NETS = """
from torch import nn

def net(num_classes):
    widths = (3, 16, 64, 160)
    body = [nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in zip(widths, widths[1:])]
    head = nn.Linear(160, num_classes)
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)

def large():
    return nn.Sequential(nn.Conv2d(3, 8, 16), nn.Flatten(), nn.Linear(8, 10))

def three():
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
"""
IMAGES = create_dataset("digits", num_classes=10, img_size=8)
PARAMS = 432 + 9_216 + 92_160 + 1_610
MACS = 64 * (432 + 9_216 + 92_160) + 1_600


@pytest.fixture(autouse=True)
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("nets.py").write_text(NETS)


def budget_of(out: Path) -> Any:
    return json.loads((out / "run.json").read_text())["config"]["budget"]


def test_the_limits_are_the_costs_of_the_network(run: Run) -> None:
    out = Path("run")
    line = f"{LINE} --like resnet20 --out {out}"

    ran = run(line)

    model = create_teacher("resnet20", 10)
    params, macs = count_params(model), count_macs(model, (3, 8, 8))
    assert params == 272_474
    assert "within the cost of resnet20 (272,474 params, 2.55M MACs)" in ran.out
    kept = budget_of(out)
    assert (kept["max_params"], kept["max_macs"]) == (params, macs)
    assert kept["max_memory"] is kept["max_latency"] is None
    again = run(f"{line} --resume --json").json
    assert again["like"] == {"network": "resnet20", "params": params, "macs": macs}
    assert all(row["model_params"] <= params and row["macs"] <= macs for row in again["top"])
    search = load_run(out).search
    assert search is not None and search.like() == "resnet20 (272,474 params, 2.55M MACs)"
    other = run(f"{LINE} --like resnet32 --out {out} --resume").mistake()
    assert "the search begun before has max_macs = 2551424, not " in other
    without = f"{LINE} --max-params {params} --max-macs {macs} --out {out} --resume"
    assert "another like" in run(without).mistake() or "has like = " in run(without).mistake()


def test_the_report_names_the_network(run: Run) -> None:
    assert run(f"{LINE} --like nets.py:net --max-macs 6M --out run").status == 0

    page = Path(run("report run --no-networks --json --quiet").json["report"]).read_text()

    assert f"within the cost of nets.py:net ({PARAMS:,} params, 6.52M MACs)." in page


def test_a_users_network_by_hand(run: Run) -> None:
    found = run(f"{LINE} --space cifar_resnet --like nets.py:net --json").json

    name = f"{Path('nets.py').resolve()}:net"
    assert found["like"] == {"network": name, "params": PARAMS, "macs": MACS}


def costs_of(name: str, *costs: str) -> Any:
    timing = Setting(IMAGES.image_shape)
    return measured(name, costs or ("params", "macs"), IMAGES, "s0", timing, Path("run"))


def test_a_library_and_an_architecture() -> None:
    hand = json.dumps({"blocks1": 3, "blocks2": 3, "blocks3": 3})
    library = create_teacher("timm:mobilenetv2_035", 10)

    assert costs_of(hand)["params"] == 272_474
    assert costs_of("timm:mobilenetv2_035", "params")["params"] == count_params(library)


def test_the_student_of_a_run_folder_and_a_lower_limit(run: Run) -> None:
    first = run(f"{LINE} --max-params 0.3M --json --out hand").json["best"]

    smaller = run(f"{LINE} --trials 2 --like hand --max-params 100K --json").json

    assert smaller["like"]["params"] == first["model_params"]
    assert smaller["like"]["macs"] == first["macs"]
    assert all(row["model_params"] <= 100_000 for row in smaller["top"])


def test_a_lower_limit_tightens_and_memory_is_copied_on_request(run: Run) -> None:
    line = f"{LINE} --like resnet20 --max-macs 2M --max-memory like --out run"

    assert run(line).status == 0

    kept = budget_of(Path("run"))
    assert (kept["max_params"], kept["max_macs"]) == (272_474, 2e6)
    assert 0 < kept["max_memory"] < 1e6 and kept["max_latency"] is None


@pytest.mark.slow
def test_the_latency_is_measured_once_for_all_runs(run: Run) -> None:
    first = run(f"{LINE} --like resnet20 --max-latency like --out run --json").json

    own = first["like"]["latency"]
    assert 0 < own < 1 and budget_of(Path("run"))["max_latency"] == own
    assert all(row["latency"] <= own for row in first["top"])
    assert costs_of("resnet20", "latency")["latency"] == own


def test_the_run_folder_keeps_the_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(budgets, "latency", lambda *given: calls.append(given) or 0.008)

    found = costs_of("resnet20", "macs", "latency")

    assert found == {"network": "resnet20", "macs": 2_551_424, "latency": 0.008}
    timing = Setting(IMAGES.image_shape)
    assert calls == [("resnet20", "s0", IMAGES, timing, Path("run/latency.jsonl"))]
    assert Path("run").is_dir()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--like resnet21", "--like resnet21: unknown network 'resnet21'; did you mean"),
        ("--like nets.py:none", "--like nets.py:none: "),
        ("--like nowhere.py:net", "--like nowhere.py:net: no such file: nowhere.py"),
        ("--like nets.py:large", "--like nets.py:large: the network cannot take images of shape"),
        ("--like nets.py:three", "--like nets.py:three: the network gives logits for 3 classes"),
        ("--like timm:nothing", "--like timm:nothing: "),
        ("--like '{}'", "--like {}: "),
        ("--like '{blocks'", "--like {blocks: the student's parameters are not JSON"),
        ("--like .", "--like .: . is no folder of a search"),
        ("--max-params like", "--max-params like: name the network that is meant with --like"),
        ("--like resnet20 --max-params 1M", "--max-params is above the 272,474 params of --like"),
        (
            "--like resnet20 --max-latency like --storage sqlite:///studies.db",
            "--max-latency like is measured anew by each process",
        ),
        ("--like resnet20 --latency-threads 2", "--latency-threads go with what measures latency"),
    ],
)
def test_mistakes(run: Run, options: str, message: str) -> None:
    assert message in run(f"{LINE} {options}").mistake()

"""A user's own functions in every place of the command line and of Python, end to end."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
import toys
import toyspaces
from commands import Run
from tiny_training import digits
from tiny_training import teacher as trained_teacher
from torch import Tensor
from torch.nn.functional import kl_div
from torch.utils.data import DataLoader, TensorDataset

import diswot
from diswot.data.dataset import hold_out, whole
from diswot.proxies.candidate import Candidate
from diswot.training.recipe import Recipe

MINE = '''
"""Everything that a user may bring."""

import torch
from optuna.samplers import RandomSampler
from torch import nn
from torch.nn.functional import kl_div
from torch.utils.data import TensorDataset


def net(num_classes, width=8):
    body = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(width, num_classes))


def space(trial, num_classes):
    return net(num_classes, trial.suggest_int("width", 4, 12))


def weights(candidate):
    """Minus the number of weights: the smallest network is the best."""
    return -sum(each.numel() for each in candidate.student.parameters())


def softened(teacher, student):
    """What Hinton's distillation compares, at T = 4."""
    logs = ((each.logits / 4).log_softmax(1) for each in (student, teacher))
    return 16 * kl_div(*logs, reduction="batchmean", log_target=True)


def images():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (60, 3, 8, 8), generator=generator).byte()
    return TensorDataset(pixels, torch.arange(60) % 3)


def sampler(seed):
    return RandomSampler(seed=seed)
'''


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path / "own")
    yield (tmp_path / "own").resolve()


SEARCH = (
    "search --teacher mine.py:net --space mine.py:space --data mine.py:images --batch-size 8 "
    "--proxy mine.py:weights --sampler mine.py:sampler --trials 4 --seed 3"
)
TRAIN = "--epochs 1 --batch-size 16 --precision fp32 --lr 0.01 --recipe plain --start fresh"


@pytest.mark.usefixtures("imported_here")
def test_every_part_with_a_worker_and_from_another_folder(run: Run, here: Path) -> None:
    alone = run(f"{SEARCH} --json").json
    found = run(f"{SEARCH} --workers 1 --out ../run --json").json
    assert found["top"] == alone["top"]

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3))
    drawn = {study.ask().suggest_int("width", 4, 12) for _ in range(4)}
    assert {row["params"]["width"] for row in found["top"]} == drawn
    for row in found["top"]:
        assert row["score"] == -row["model_params"]
    width = min(drawn)
    assert found["best"]["model_params"] == 27 * width + width + 3 * width + 3

    config = json.loads(Path("../run/run.json").read_text())["config"]
    names = {"teacher": "net", "space": "space", "data": "images", "proxy": "weights"}
    names |= {"sampler": "sampler"}
    assert {k: config[k] for k in names} == {k: f"{here}/mine.py:{v}" for k, v in names.items()}

    os.chdir(here.parent)
    own, loss = f"{here}/mine.py", f"{here}/mine.py:softened"
    again = run(f"{SEARCH.replace('mine.py', own)} --out run --resume --json").json
    assert again["top"] == found["top"]
    train = f"distill run --trained {TRAIN} --quiet --json"
    by_hand = run(f"{train} --losses own/mine.py:softened:0.5 --out run/hand").json
    built_in = run(f"{train} --losses kd:0.5 --out run/kd").json
    assert by_hand["losses"] == {loss: 0.5}
    histories = [
        json.loads(Path(f"run/{name}/history.jsonl").read_text()) for name in ("hand", "kd")
    ]
    assert histories[0][loss] == pytest.approx(histories[1]["kd"], rel=1e-5)
    assert by_hand["data"] == f"{own}:images" and built_in["classes"] == 3
    more = train.replace("--epochs 1", "--epochs 2")
    os.chdir(here)
    longer = f"{more} --losses mine.py:softened:0.5 --out ../run/hand --resume"
    ran = run(longer.replace("distill run", "distill ../run"))
    assert "epochs = 1, not 2" in ran.mistake()
    assert run("report ../run --quiet").status == 0
    assert "mine.py:softened" in Path("../run/report.html").read_text()
    exported = run("export ../run --trained ../run/hand --format safetensors --out ../e --json")
    assert exported.status == 0 and Path("../e").is_dir(), exported.err


def test_scores_of_one_student_and_of_a_table(run: Run, here: Path) -> None:
    line = "--teacher mine.py:net --data mine.py:images --batch-size 8"
    names = "--proxies mine.py:weights,mine.py:softened,kd,params"
    scored = run(f"score --student mine.py:net {line} {names} --json").json["scores"]
    assert scored[f"{here}/mine.py:weights"] == -scored["params"]
    assert scored[f"{here}/mine.py:softened"] == pytest.approx(scored["kd"], rel=1e-5)
    shown = run(f"score --student mine.py:net {line} {names} -q").out
    assert "mine.py:weights" in shown and str(here) not in shown.replace("\n", "")

    rows = "".join(f"{w},{50 + w}\n" for w in range(4, 9))
    Path("table.csv").write_text(f"width,accuracy\n{rows}")
    line = f"rank --table table.csv --space mine.py:space {line} {names} --resamples 0 --json"
    weights = f"{here}/mine.py:weights"
    ranked = run(f"{line} --no-out --scores ../scores.csv").json["rows"]
    taus = {name: row["kendall"] for name, row in ranked.items()}
    assert taus[weights] == -1 == -taus["params"]
    assert taus[f"{here}/mine.py:softened"] == taus["kd"]
    os.chdir(here.parent)
    again = run("rank --from scores.csv --resamples 0 --json").json["rows"]
    assert {name: row["kendall"] for name, row in again.items()} == taus


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--proxy mine.py:wights", "unknown function in {}/mine.py 'wights'; did you mean weights"),
        ("--proxy other.py:weights", "no such file: {}/other.py"),
        ("--proxy mine.py", "name a function in {}/mine.py, as {}/mine.py:function"),
        ("--proxy mine.py:images", "mine.py:images is no score: it must take a candidate, or"),
        ("--proxy no_such.package:score", "no module no_such.package: install its package, or"),
        ("--proxy diswot.nothing:score", "no module diswot.nothing: install its package, or"),
        ("--sampler mine.py:images", "mine.py:images must return an Optuna sampler, not a Tensor"),
        ("--data mine.py:sampler", "mine.py:sampler fails: TypeError: sampler() missing 1"),
        ("--data mine.py:space", "mine.py:space fails: TypeError: "),
        ("--teacher no_such.package:net", "no module no_such.package"),
        ("--space no_such.package:net", "no module no_such.package"),
    ],
)
def test_mistakes_are_one_line(run: Run, here: Path, words: str, said: str) -> None:
    assert said.replace("{}", str(here)) in run(f"{SEARCH} {words}").mistake()


def test_mistakes_in_losses(run: Run, here: Path) -> None:
    line = "distill --student mine.py:net --teacher mine.py:net --trained --data mine.py:images"
    for words, said in (
        ("mine.py:softend", "unknown function in {}/mine.py 'softend'; did you mean softened"),
        ("mine.py:net", "mine.py:net is no knowledge distance: it must take"),
        ("mine.py:softened:a", "'a' is no weight for {}/mine.py:softened"),
        ("kd,mine.py:softened,mine.py:softened:2", "is weighted twice"),
    ):
        assert (
            said.replace("{}", str(here))
            in run(f"{line} {TRAIN} --out x --losses {words}").mistake()
        )
    assert not Path("x").exists()


def test_modules_of_a_package(run: Run, here: Path) -> None:
    package = here / "own_package_of_a_test"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "parts.py").write_text(MINE)
    name = "own_package_of_a_test.parts"
    alone = run(f"{SEARCH} --json").json
    found = run(f"{SEARCH.replace('mine.py', name)} --out ../run --json").json
    assert [row["score"] for row in found["top"]] == [row["score"] for row in alone["top"]]
    config = json.loads(Path("../run/run.json").read_text())["config"]
    assert (config["space"], config["data"]) == (f"{name}:space", f"{name}:images")


# In Python, the functions themselves.


def gap(teacher: Any, student: Any) -> Tensor:
    logs = ((each.logits / 4).log_softmax(1) for each in (student, teacher))
    return 16 * kl_div(*logs, reduction="batchmean", log_target=True)


def smallness(candidate: Candidate) -> float:
    return -sum(each.numel() for each in candidate.student.parameters())


def own_data() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    shape = (60, 3, toys.PIXELS, toys.PIXELS)
    pixels = torch.randint(0, 256, shape, generator=generator).byte()
    return TensorDataset(pixels, torch.arange(60) % toys.CLASSES)


def test_search_in_python_with_a_worker() -> None:
    data = own_data()
    found = diswot.search(
        None,
        toyspaces.tiny,
        DataLoader(data),
        n_trials=6,
        sampler=optuna.samplers.RandomSampler(seed=0),
        scoring=smallness,
        compute=1,
    )
    assert found.best.score == -found.best.model_params
    same = diswot.search(
        None,
        toyspaces.tiny,
        data,
        n_trials=6,
        sampler=lambda: optuna.samplers.RandomSampler(seed=0),
        scoring="params",
    )
    sizes = [[row.model_params for row in each.top] for each in (found, same)]
    assert sorted(sizes[0]) == sorted(sizes[1])


def test_scores_in_python() -> None:
    models = [toys.seeded(toys.LinearHead, seed) for seed in (0, 1)]
    data = own_data()
    kept, _ = hold_out(data.tensors[1].numpy())
    found = diswot.score(*models, data, [gap, "kd"])
    assert found["gap"] == pytest.approx(found["kd"], rel=1e-5)
    ready = diswot.create_dataset(data)
    assert ready.train is not None and len(ready.train) == len(kept) == 48
    assert diswot.score(*models, ready.batch(48), [gap]) == {"gap": found["gap"]}


def test_distillation_in_python() -> None:
    recipe = Recipe(epochs=1, batch_size=110, lr=0.01, crop=0, flip=False, precision="fp32")

    def curve(losses: Any, images: Any = None) -> list[float]:
        student = toys.seeded(toys.LinearHead, 1)
        trained = diswot.distill(
            trained_teacher(), student, images or digits(), recipe, losses=losses
        )
        row = trained.history[0]
        return [row["loss"], row["train_accuracy"], row["test_accuracy"]]

    wanted = curve({"kd": 0.5})
    assert curve({gap: 0.5}) == pytest.approx(wanted, rel=1e-5)
    assert curve("kd:0.5") == wanted
    assert curve({"kd": 0.25}) != wanted
    train, test = (TensorDataset(*whole(split)) for split in (digits().train, digits().test))
    pair = DataLoader(train, batch_size=3), test
    same = diswot.create_dataset((train, test))
    assert curve({"kd": 0.5}, pair) == curve({"kd": 0.5}, same) != wanted  # another normalisation
    as_before = replace(same, mean=digits().mean, std=digits().std)
    assert curve({"kd": 0.5}, as_before) == wanted

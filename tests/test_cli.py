"""The command line: its contract, and what it says of mistakes."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import Ran, Run, call, without_waiting
from full_disk import full_disk
from PIL import Image
from torch import nn

import diswot
from diswot.cli import main, score_names
from diswot.cli.inputs import NamedImages
from diswot.cli.options import TeacherOptions
from diswot.cli.subject import subject_of
from diswot.cli.training_options import SubjectOptions
from diswot.models import registry
from diswot.models.weights import load_weights as load_network_weights
from diswot.nas.samplers import SAMPLERS
from diswot.proxies.registry import PROXIES
from diswot.spaces import nasbench201
from diswot.spaces.registry import build_network, create_space
from diswot.training.distill import distill
from diswot.utils.state_dicts import read_weights

SMALL = "--data noise --classes 10 --batch-size 4 --image-size 8"
PLAIN = f"search --teacher resnet20 {SMALL} --trials 5"
SEARCH = f"{PLAIN} --proxy diswot"
SCORE = f"score --teacher resnet20 {SMALL}"
TRAIN = "distill --data digits --image-size 8 --epochs 1 --batch-size 256 --precision fp32"
CELL = "|avg_pool_3x3~0|+|none~0|nor_conv_3x3~1|+|none~0|none~1|nor_conv_3x3~2|"
INITS = ("gaussian", "kaiming", "default")
STUDENT = '{"blocks1": 1, "blocks2": 1, "blocks3": 3}'

NETS = """
import torch
from torch import nn

def net(classes, pixels=32, width=8):
    body = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(width, classes))

def no_classifier():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())

def other_pixels(classes):
    flat = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*flat, nn.Linear(8 * 32 * 32, classes))

def raising():
    raise ValueError("first\\nsecond")

def number():
    return 3

def loud(classes):
    print("a user's own words")
    return net(classes)

def space(trial, classes):
    print("a user's own words")
    return net(classes, width=trial.suggest_int("width", 4, 6))

def raising_space(trial):
    trial.suggest_int("width", 4, 6)
    raise RuntimeError("no such\\nnetwork")

def few(trial, classes):
    return net(classes, width=trial.suggest_int("width", 4, 6))
"""

SLOW = """
def slow(trial, classes):
    import time
    time.sleep(0.03)
    return net(classes, width=trial.suggest_int("width", 1, 30))
"""


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds nets.py, a finished search on digits and a trained teacher; not to be changed."""
    root: Path = tmp_path_factory.mktemp("cli")
    (root / "nets.py").write_text(NETS)
    found = root / "found"
    search = f"search --teacher resnet20 --data digits --image-size 8 --batch-size 8 --out {found}"
    main([*shlex.split(search), "--trials", "4", "--max-params", "0.3M", "--quiet"])
    teacher = f"{TRAIN} --student resnet20 --teacher none --out {root / 'teacher'} --quiet"
    main(shlex.split(teacher))
    return root


@pytest.fixture
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory is where nets.py is."""
    monkeypatch.chdir(place)
    return place


class TestVerify:
    LINE = "search --teacher resnet20 --data digits --image-size 8 --batch-size 8 --trials 2"

    def test_the_winner_is_what_is_distilled(self, run: Run, place: Path, tmp_path: Path) -> None:
        weights = place / "teacher" / "student.safetensors"
        line = f"{self.LINE} --teacher-weights {weights} --max-params 0.1M --verify 2"
        line += f" --verify-epochs 1 --tune lr --verify-trials 3 --out {tmp_path / 'x'}"
        first = run(f"{line} --json")
        assert re.findall(r"^verifying (.) of 3: epoch 1 of 1, loss [\d.]+, held-out [\d.]+ %$",
                          first.err, re.MULTILINE) == ["0", "1", "2"]  # fmt: skip
        found = first.json
        trained = found["verified"]["trained"]
        assert len(trained) == 3 and found["verified"]["held_out"] == 288
        assert found["best"]["accuracy"] == max(each["accuracy"] for each in trained)
        assert found["best"]["params"] == trained[0]["student"]["params"]
        assert json.loads((tmp_path / "x" / "found.json").read_text())["best"] == found["best"]
        again = run(f"{line} --resume")
        assert again.status == 0 and "288 held-out training images" in again.out
        low, high = found["verified"]["best"]["interval"]
        won = f"{trained[0]['accuracy']:.2f} % after 1 epoch (95 % interval {low:.2f} to {high:.2f}"
        assert re.search(rf"^winner: blocks1=.*: {re.escape(won)} %\); ", again.out, re.MULTILINE)
        start = {"from": "teacher", "share": 1.0, "channels": "norm"}
        assert [each["start"] for each in trained] == [start] * 3
        said = "the trainings began with weights of the teacher, 100% of the parameters"
        assert f"\n{said}\n" in again.out
        students = {json.dumps(each["student"]["params"]) for each in trained}
        assert students <= {json.dumps(each["params"]) for each in found["diverse"][:2]}
        lr = f"{trained[0]['changes']['lr']:.3g}"
        assert f"next: diswot distill {tmp_path / 'x'} --lr {lr}\n" in again.err

    def test_the_network_of_like_is_trained_alike(
        self, run: Run, place: Path, tmp_path: Path
    ) -> None:
        weights = place / "teacher" / "student.safetensors"
        line = f"{self.LINE} --teacher-weights {weights} --like resnet20 --verify 1"
        line += f" --verify-epochs 1 --out {tmp_path / 'x'}"
        made = run(line)
        assert made.status == 0, made.err
        found = json.loads((tmp_path / "x" / "found.json").read_text())
        baseline = found["verified"]["baseline"]
        assert baseline["epochs"] == 1 and found["verified"]["best"]["student"] is not None
        said = f"resnet20, trained alike: {baseline['accuracy']:.2f} % ("
        assert f"\n{said}" in made.out
        run(f"report {tmp_path / 'x'} --no-networks")
        assert "resnet20 (" in (tmp_path / "x" / "report.html").read_text()
        assert ", trained alike: " in (tmp_path / "x" / "report.html").read_text()

    def test_students_start_as_distill_starts_them(
        self, run: Run, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """To the bit; but the statistics of a verification are not of the held-out images."""
        starts = []

        def train(teacher: Any, student: nn.Module, *given: Any, **how: Any) -> Any:
            starts.append({name: value.clone() for name, value in student.named_parameters()})
            return distill(teacher, student, *given, **how)

        monkeypatch.setattr("diswot.training.verify.distill", train)
        monkeypatch.setattr("diswot.training.distill.distill", train)
        weights = place / "teacher" / "student.safetensors"
        line = f"{self.LINE} --space subnet:resnet20 --teacher-weights {weights}"
        line += f" --out {tmp_path / 'x'} --verify 1 --verify-epochs 1 --recipe short"
        trained = run(f"{line} --json").json["verified"]["trained"]
        result = run(f"distill {tmp_path / 'x'} --epochs 1 --start teacher --json").json
        assert result["start"] == trained[0]["start"] and result["start"]["share"] == 1.0
        assert result["student"] == trained[0]["student"]["params"]
        assert starts[0].keys() == starts[1].keys()
        assert all(torch.equal(value, starts[1][name]) for name, value in starts[0].items())

    def test_classes_of_the_teacher_are_matched_by_name(
        self, run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        heads = []

        def train(teacher: Any, *given: Any, **how: Any) -> Any:
            heads.append(teacher.fc.weight.clone())
            return distill(teacher, *given, **how)

        monkeypatch.setattr("diswot.training.verify.distill", train)
        names = [str(digit) for digit in reversed(range(10))]
        monkeypatch.setattr("diswot.runs.folder.recorded_classes", lambda weights: names)
        weights = place / "teacher" / "student.safetensors"
        line = f"{self.LINE} --teacher-weights {weights} --verify 1 --verify-epochs 1 --json"
        assert run(line).status == 0
        own = read_weights(weights)["fc.weight"]
        assert torch.equal(heads[0].cpu(), own.flip(0))

    def test_a_search_is_whole_and_locked_while_it_is_verified(
        self, run: Run, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out, messages = tmp_path / "my x", []
        weights = place / "teacher" / "student.safetensors"
        line = f"{self.LINE} --teacher-weights {weights} --out '{out}' --verify 1"

        def train(*given: Any, **how: Any) -> Any:
            messages.append(run(f"{line} --resume").mistake())
            raise KeyboardInterrupt

        monkeypatch.setattr("diswot.training.verify.distill", train)
        assert run(line).status == 130
        assert messages == [f"a search is under way in {out}; wait, or name another"]
        found = json.loads((out / "found.json").read_text())
        assert found["best"] == found["top"][0] and "verified" not in found
        assert (
            f"next: diswot distill '{out}'"
            in run(f"{self.LINE} --out '{out}' --resume --teacher-weights {weights}").err
        )

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ("--verify 2", "to verify students a teacher must be trained; give --teacher-weights"),
            ("--tune lr", "--tune goes with --verify"),
            ("--recipe fast", "--recipe goes with --verify"),
            ("--losses kd:1", "--losses goes with --verify"),
        ],
    )
    def test_refused_before_the_search(self, run: Run, options: str, message: str) -> None:
        assert message in run(f"{self.LINE} {options}").mistake()

    def test_refused_with_a_teacher(self, run: Run, place: Path) -> None:
        line = f"--teacher-weights {place / 'teacher' / 'student.safetensors'} --verify 2"
        message = run(f"{self.LINE} {line} --tune temprature").mistake()
        assert "unknown setting to tune 'temprature'; did you mean temperature" in message
        assert "unknown recipe 'fats'" in run(f"{self.LINE} {line} --recipe fats").mistake()
        assert "did you mean kd" in run(f"{self.LINE} {line} --losses kdd").mistake()
        message = run(f"{self.LINE.replace('digits', 'noise --classes 10')} {line}").mistake()
        assert "noise has no images to train on" in message


class TestSearch:
    def test_json(self, run: Run) -> None:
        found = run(f"{SEARCH} --max-params 0.4M --json").json
        keys = {"best", "top", "trials", "scored", "failed", "seconds", "seconds_per_candidate"}
        assert keys <= found.keys() and found["failed"] == 0
        best = found["best"]
        assert {"params", "score", "model_params", "macs"} <= best.keys()
        assert best == found["top"][0] and len(found["top"]) == 5 == found["trials"]
        scores = [row["score"] for row in found["top"]]
        assert scores == sorted(scores, reverse=True)
        assert all(row["model_params"] <= 400_000 for row in found["top"])
        assert best["params"].keys() == {"blocks1", "blocks2", "blocks3"}
        model = build_network(create_space("s0", 10), best["params"])
        assert best["model_params"] == sum(p.numel() for p in model.parameters())

    def test_table(self, run: Run) -> None:
        ran = run(f"{SEARCH} --quiet")
        assert ran.status == 0 and ran.err == ""
        assert "best of 5 students" in ran.out and "diswot" in ran.out and "blocks1=" in ran.out

    def test_score_is_that_of_the_search_in_another_process(self, run: Run) -> None:
        found = run(f"{SEARCH} --repeats 2 --seed 7 --json").json
        student = json.dumps(found["best"]["params"])
        alone = run(f"{SCORE} --repeats 2 --seed 7 --proxies diswot --json --student", student)
        line = f"{SCORE} --repeats 2 --seed 7 --proxies kd,diswot,params --json --student"
        other = call(line, student).json
        assert alone.json["scores"]["diswot"] == found["best"]["score"]
        assert other["scores"]["diswot"] == found["best"]["score"]
        assert other["repeats"]["diswot"] == alone.json["repeats"]["diswot"]

    def test_default_score(self, run: Run, tmp_path: Path) -> None:
        found = run(f"{PLAIN} --out {tmp_path} --json").json
        student = json.dumps(found["best"]["params"])
        alone = run(f"{SCORE} --proxies default --json --student", student).json
        assert alone["scores"] == {"default": found["best"]["score"]}
        for option, message in (
            ("--proxy detail", "has proxy = 'default', not 'detail'"),
            ("--init gaussian", "has init = 'kaiming', not 'gaussian'"),
            ("--proxy diswot", "has init = 'kaiming', not 'gaussian'"),
        ):
            line = f"{PLAIN} --out {tmp_path} --resume {option}"
            assert f"the search begun before {message}" in run(line).mistake()
        line = f"{PLAIN} --out {tmp_path} --resume --proxy default --init kaiming --json"
        assert run(line).json["top"] == found["top"]
        shown = run(f"{PLAIN} --out {tmp_path} --resume").out
        assert "default" in shown and "diswot" not in shown

    def test_sub_networks_of_a_trained_teacher_are_scored_with_its_weights(
        self, run: Run, place: Path
    ) -> None:
        line = f"{PLAIN.replace('5', '2')} --space subnet:resnet20 --json"
        trained = f"{line} --teacher-weights {place / 'teacher' / 'student.safetensors'}"
        found = run(trained).json["best"]["score"]
        assert found == run(f"{trained} --proxy default_inherited").json["best"]["score"]
        for plain in (line, f"{trained} --proxy default", f"{trained} --init kaiming"):
            score = run(plain).json["best"]["score"]
            assert score == run(f"{line} --proxy default").json["best"]["score"] > found

    def test_whole_space(self, run: Run) -> None:
        found = run(f"{SEARCH} --trials 100 --proxy params --json").json
        assert found["exhaustive"] and found["scored"] == 64 and len(found["top"]) == 10
        assert found["best"]["params"] == {"blocks1": 7, "blocks2": 7, "blocks3": 7}

    @pytest.mark.parametrize("sampler", sorted(SAMPLERS))
    def test_samplers(self, run: Run, sampler: str) -> None:
        assert run(f"{SEARCH} --sampler {sampler} --json").json["trials"] == 5

    def test_run_folder(self, run: Run, tmp_path: Path) -> None:
        out = tmp_path / "a" / "run"
        ran = run(f"{SEARCH} --out {out}")
        assert f"next: diswot distill {out} --teacher-weights FILE, the trained" in ran.err
        names = sorted(path.name for path in out.iterdir())
        assert names == [".search.lock", "found.json", "run.json", "study.journal"]
        facts = json.loads((out / "run.json").read_text())
        assert facts.keys() == {"command", "versions", "hardware", "config", "study"}
        assert facts["config"]["teacher"] == "resnet20" and facts["config"]["image_size"] == 8
        assert "holds a search already; add --resume" in run(f"{SEARCH} --out {out}").mistake()
        found = json.loads((out / "found.json").read_text())
        again = run(f"{SEARCH} --out {out} --resume --json").json
        more = run(f"{SEARCH} --out {out} --resume --json --trials 8").json
        assert again["top"] == found["top"] and again["scored"] == found["scored"] == 5
        assert more["trials"] == 8 and json.loads((out / "found.json").read_text()) == more
        assert json.loads((out / "run.json").read_text()) == facts

    @pytest.mark.parametrize(
        ("option", "message"),
        [
            ("--seed 1", "has seed = 0, not 1"),
            ("--proxy relation", "has proxy = 'diswot', not 'relation'"),
            ("--init kaiming", "has init = 'gaussian', not 'kaiming'"),
            ("--proxy default", "has init = 'gaussian', not 'kaiming'"),
            ("--teacher resnet32", "has teacher = 'resnet20', not 'resnet32'"),
            ("--max-params 0.3M", "has max_params = None, not 300000.0"),
            ("--space nasbench201", "has space = 's0', not 'nasbench201'"),
            ("--image-size 16", "has "),
            ("--data digits", "has "),
        ],
    )
    def test_resume_with_other_options(
        self, run: Run, tmp_path: Path, option: str, message: str
    ) -> None:
        run(f"{SEARCH} --trials 2 --out {tmp_path} -q")
        line = f"{SEARCH} --trials 2 --out {tmp_path} --resume {option}"
        assert f"the search begun before {message}" in run(line).mistake()

    def test_resume_of_nothing_says_so_and_begins(self, run: Run, tmp_path: Path) -> None:
        line = f"{SEARCH} --trials 2 --out {tmp_path}/new --resume"
        begun, again = run(line), run(line)
        assert f"nothing to resume: {tmp_path}/new holds no search; a new one begins" in begun.err
        assert begun.status == again.status == 0 and "nothing to resume" not in again.err

    def test_without_a_folder_it_is_kept_in_one_that_is_free(
        self, run: Run, tmp_path: Path
    ) -> None:
        runs, line = tmp_path / "runs", f"{PLAIN} --proxy params --trials 2"
        first, second = run(line), run(line)
        assert f"kept in {runs}/s0-1; next: diswot distill {runs}/s0-1" in first.err
        assert f"kept in {runs}/s0-2" in second.err
        assert {path.name for path in runs.glob("*/found.json")} == {"found.json"}
        left_out = run(f"{line} --no-out")
        stored = run(f"{line} --storage sqlite:///{tmp_path / 'a.db'}")
        assert "not kept: --no-out was given" in left_out.err and "kept" not in stored.err
        assert sorted(path.name for path in runs.iterdir()) == ["s0-1", "s0-2"]
        assert run(f"{line} --no-out --out x").mistake() == "give --out or --no-out, not both"

    def test_a_mistake_does_not_use_up_the_folder(self, run: Run, tmp_path: Path) -> None:
        out = tmp_path / "run"
        for wrong in ("--proxy x", "--sampler x", "--init x", "--trials 0", "--teacher x"):
            run(f"{SEARCH} --out {out} {wrong}").mistake()
        assert not out.exists()
        assert run(f"{SEARCH} --out {out} --json").json["trials"] == 5

    def test_storage(self, run: Run, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path / 'study.db'}"
        first = run(f"{SEARCH} --storage {url} --study mine --json").json
        for resume in ("", " --resume"):
            again = run(f"{SEARCH} --storage {url} --study mine{resume} --json").json
            assert (again["top"], again["scored"]) == (first["top"], first["scored"])
        other = run(f"{SEARCH} --storage {url} --study mine --seed 1").mistake()
        assert "the search begun before has seed = 0, not 1" in other

    def test_users_own_from_any_folder(self, run: Run, here: Path, tmp_path: Path) -> None:
        line = "--teacher nets.py:loud --space nets.py:space --trials 9 --proxy relation"
        ran = run(f"search {line} {SMALL} --out {tmp_path} --json")
        assert ran.json["exhaustive"] and ran.json["scored"] == 3
        assert "a user's own words" in ran.err
        config = json.loads((tmp_path / "run.json").read_text())["config"]
        assert config["teacher"] == f"{here.resolve() / 'nets.py'}:loud"
        os.chdir(tmp_path)
        line = line.replace("nets.py", str(here / "nets.py"))
        assert run(f"search {line} {SMALL} --out . --resume --json").json["scored"] == 3

    def test_space_that_builds_nothing(self, run: Run, here: Path) -> None:
        said = run(f"{SEARCH} --space nets.py:raising_space --trials 3 -q").mistake()
        assert said == "nets.py:raising_space is no space: RuntimeError: no such network (line 32)"

    def test_all_candidates_fail(self, run: Run, here: Path) -> None:
        ran = run(f"{SEARCH} --space nets.py:space --trials 3 -q")
        last = Ran(ran.status, ran.out, ran.err.splitlines()[-1] + "\n").mistake(1)
        assert "3 failed, such as: " in last

    @pytest.mark.parametrize("data", ["digits", "folder"])
    def test_real_images(self, run: Run, tmp_path: Path, data: str) -> None:
        if data == "folder":
            data = str(images(tmp_path / "data"))
        line = f"search --teacher resnet20 --data {data} --image-size 8 --batch-size 4 --trials 2"
        assert run(f"{line} --json").json["trials"] == 2


class TestScore:
    def test_json(self, run: Run) -> None:
        scored = run(f"{SCORE} --json --student", STUDENT).json
        assert scored["student"] == json.loads(STUDENT)
        assert {"diswot", "semantic", "relation", "kd", "params", "macs"} <= scored["scores"].keys()
        parts = scored["scores"]["semantic"] + scored["scores"]["relation"]
        assert scored["scores"]["diswot"] == pytest.approx(parts)
        model = build_network(create_space("s0", 10), json.loads(STUDENT))
        assert scored["scores"]["params"] == sum(p.numel() for p in model.parameters())

    def test_together_as_alone(self, run: Run) -> None:
        together = run(f"{SCORE} --json --student", STUDENT).json
        for name in ("kd", "relation", "naswot", "grad_norm", "params"):
            alone = run(f"{SCORE} --json --proxies {name} --student", STUDENT).json
            assert alone["scores"] == {name: together["scores"][name]}

    def test_no_teacher_is_built_that_no_score_needs(
        self, run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        names = "zen,naswot,grad_norm,params"
        line = f"score {SMALL} --json --student resnet20 --repeats 2"
        beside = run(f"{line} --proxies {names},relation").json
        monkeypatch.setattr(registry, "teacher_builder", lambda *a, **k: pytest.fail("built"))
        scored = run(f"{line} --proxies {names}").json
        assert list(scored["scores"]) == names.split(",")
        assert scored["repeats"] == {name: beside["repeats"][name] for name in names.split(",")}
        weights = place / "teacher" / "student.safetensors"
        line = f"score {SMALL} --student resnet20 --teacher-weights {weights} --proxies {names}"
        ran = run(line)
        assert ran.status == 0 and f"no teacher is needed for {names}".replace(",", ", ") in ran.err
        with pytest.raises(pytest.fail.Exception):
            run(f"{line},relation")

    def test_a_default_teacher_is_named_where_a_score_looks_at_it(self, run: Run) -> None:
        line = f"score {SMALL} --student resnet20 --proxies"
        note = "the teacher is resnet56 with fresh weights; see --teacher and --teacher-weights"
        assert note in run(f"{line} params,relation").err
        assert note in run(f"search {SMALL} --trials 1 --no-out --proxy relation").err
        assert "the teacher is" not in run(f"{line} params,zen").err
        assert "the teacher is" not in run(f"{line} relation --teacher resnet20").err

    def test_each_row_with_its_own_initialisation_or_the_given_one(self, run: Run) -> None:
        """Of a cell with gaps, which depend on the weights."""
        names = ["kd", "default", "params", "diswot", "effective_rank"]
        student = json.dumps(nasbench201.from_string(CELL))

        def scores(proxies: list[str], *options: str) -> dict[str, float]:
            line = f"{SCORE} --json --proxies {','.join(proxies)}"
            ran = run(line, "--space", "nasbench201", "--student", student, *options)
            scored: dict[str, float] = ran.json["scores"]
            return scored

        given = {init: scores(names, "--init", init) for init in INITS}
        own = scores(names)
        assert list(own) == names
        for name in names:
            assert scores([name]) == {name: own[name]}
            init = "kaiming" if name in ("default", "effective_rank") else "gaussian"
            assert own[name] == given[init][name]
            values = {given[init][name] for init in INITS}
            assert len(values) == (1 if name == "params" else len(INITS))

    def test_inherited_from_a_trained_teacher(self, run: Run, place: Path) -> None:
        line = "score --teacher resnet20 --data digits --image-size 8 --batch-size 16 --json"
        trained = f"--teacher-weights {place / 'teacher' / 'student.safetensors'}"
        own = '{"blocks1": 3, "blocks2": 3, "blocks3": 3}'
        names = "--proxies agreement,agreement_top1"

        given = run(f"{line} {trained} {names}", "--student", own).json["scores"]
        assert given == {"agreement": 0.0, "agreement_top1": 1.0}
        kd = f"{line} {trained} --proxies kd,naswot,default"
        ran = run(f"{kd} --init inherited", "--student", own)
        assert ran.json["scores"]["kd"] == 0 and "change nothing" not in ran.err
        less, fresh = (
            run(f"{line} {trained} --proxies agreement --init {init}", "--student", STUDENT).json
            for init in ("inherited", "kaiming")
        )
        assert 0 > less["scores"]["agreement"] > fresh["scores"]["agreement"]

    def test_all_scores_without_a_trained_teacher(self, run: Run) -> None:
        assert score_names.proxy_names("all", TeacherOptions(), "default") == list(PROXIES)
        plain = score_names.proxy_names("all", TeacherOptions(), None)
        assert {*PROXIES} - {*plain} == {"agreement", "agreement_top1", "default_inherited"}
        assert score_names.proxy_names("all", TeacherOptions(pretrained=True), None) == list(
            PROXIES
        )

    @pytest.mark.parametrize(
        ("options", "named"),
        [
            ("score --student resnet20 --proxies agreement,kd", "agreement looks"),
            ("score --student resnet20 --proxies kd,params,naswot --init inherited", "kd, naswot"),
            ("search --data noise --trials 2 --proxy agreement", "agreement looks"),
            ("search --data noise --trials 2 --init inherited", "default looks"),
            ("search --data noise --trials 2 --init inherited --workers 2", "default looks"),
            ("rank --table {table} --proxies diswot --init inherited", "diswot looks"),
            ("rank --table {table} --proxies agreement,agreement_top1", "agreement_top1 look"),
        ],
    )
    def test_inheritance_from_an_untrained_teacher(
        self, run: Run, options: str, named: str, tmp_path: Path
    ) -> None:
        table = tmp_path / "t.csv"
        rows = [f"{i},{2 * i - 1},1,{50 + i}" for i in (1, 3, 5)]
        table.write_text("\n".join(["blocks1,blocks2,blocks3,accuracy", *rows]) + "\n")
        line = f"{options.format(table=table)} --teacher resnet20 {SMALL}"
        mistake = run(line).mistake()
        assert named in mistake
        assert mistake.endswith("give --teacher-weights FILE, --pretrained or --trained")

    def test_repeats(self, run: Run) -> None:
        line = f"{SCORE} --proxies kd,relation --repeats 3 --json --student"
        scored = run(line, STUDENT).json
        assert all(len(values) == 3 for values in scored["repeats"].values())
        for name, values in scored["repeats"].items():
            assert scored["scores"][name] == pytest.approx(np.mean(values))
            assert scored["standard_errors"][name] == pytest.approx(np.std(values, ddof=1) / 3**0.5)

    def test_table(self, run: Run) -> None:
        ran = run(f"{SCORE} --proxies params --student resnet20")
        assert ran.status == 0 and "272474" in ran.out and ran.err == ""

    def test_what_does_not_fit_is_told_and_left_out(self, run: Run, here: Path) -> None:
        ran = run(f"{SCORE} --student nets.py:net --json")
        assert "semantic needs" in ran.json["unscored"]["semantic"]
        assert "semantic" not in ran.json["scores"] and "relation" in ran.json["scores"]
        assert "not scored: semantic needs" in run(f"{SCORE} --student nets.py:net").err
        message = run(f"{SCORE} --student nets.py:net --proxies relation,semantic").mistake()
        assert "the student has no score: semantic needs" in message

    def test_trained_teacher(self, run: Run, place: Path) -> None:
        weights = place / "teacher" / "student.safetensors"
        line = f"{SCORE} --data digits --proxies kd --json --student resnet20"
        trained = run(f"{line} --teacher-weights {weights}").json["scores"]["kd"]
        assert trained != run(line).json["scores"]["kd"]


class TestDistill:
    def test_without_a_folder_it_is_kept_in_one_that_is_free(
        self, run: Run, tmp_path: Path
    ) -> None:
        runs, line = tmp_path / "runs", f"{TRAIN} --teacher none --student"
        first = run(f"{line} resnet20")
        found = run(line, '{"blocks1": 1, "blocks2": 1, "blocks3": 1}')
        assert f"kept in {runs}/resnet20-alone-1, the weights in student.safetensors" in first.err
        assert f"kept in {runs}/s0-alone-1" in found.err
        assert sorted(path.parent.name for path in runs.glob("*/student.safetensors")) == [
            "resnet20-alone-1",
            "s0-alone-1",
        ]
        left_out, kept = run(f"{line} resnet20 --no-out"), run(f"{line} resnet20 --no-out --json")
        assert "not kept: --no-out was given" in left_out.err and "resnet20-alone" in left_out.out
        assert len([*runs.iterdir()]) == 2
        recorded = json.loads((runs / "resnet20-alone-1" / "trained.json").read_text())["result"]
        assert kept.json == {**recorded, "out": None, "seconds": kept.json["seconds"]}

    def test_after_a_search_alone_and_taught(self, run: Run, place: Path, tmp_path: Path) -> None:
        folder = tmp_path / "run"
        folder.mkdir()
        for name in ("run.json", "found.json"):
            (folder / name).write_bytes((place / "found" / name).read_bytes())
        best = json.loads((folder / "found.json").read_text())["best"]
        line = f"distill {folder} --epochs 1 --batch-size 256"
        untrained = run(line).mistake()
        assert "diswot distill --student resnet20 --teacher none --data digits" in untrained
        ran = run(f"{line} --teacher none --json")
        shown = rf"epoch 1 of 1, loss [\d.]+, test {ran.json['test_accuracy']:.2f} %, \d+ images/s"
        assert re.search(rf"^training (\d+) of \1: {shown}$", ran.err, re.MULTILINE)
        alone = ran.json
        assert alone["teacher"] is None and alone["out"] == str(folder / "alone")
        weights = place / "teacher" / "student.safetensors"
        for name, damage in (("other", "{"), ("third", '{"result": {}}')):
            (folder / name).mkdir()
            (folder / name / "trained.json").write_text(damage)
        ran = run(f"{line} --teacher-weights {weights} --losses kd:0.9,relation")
        assert " alone " in ran.out and "resnet20: 0.9 kd, 1" in ran.out
        first = [line.split("│")[1].strip() for line in ran.out.splitlines() if "│" in line]
        assert list(filter(None, first)) == ["alone", "distilled"]
        taught = run(f"{line} --teacher-weights {weights} --losses kd:0.9,relation --resume --json")
        result = taught.json
        assert result["teacher"] == "resnet20" and result["out"] == str(folder / "distilled")
        assert result["losses"] == {"kd": 0.9, "relation": 1.0}
        assert result["student"] == best["params"]
        assert result["model_params"] == best["model_params"] and result["macs"] == best["macs"]
        assert result["epochs"] == 1 and result["seconds"] > 0
        assert 0 <= result["test_accuracy"] <= 100 and 0 <= result["train_accuracy"] <= 100
        kept = json.loads((folder / "distilled" / "trained.json").read_text())
        assert kept["result"] == result and kept["versions"]["torch"]
        model = build_network(create_space("s0", 10), best["params"])
        load_network_weights(model, folder / "distilled" / "student.safetensors")

    def test_after_a_search_that_records_no_images(
        self, run: Run, place: Path, tmp_path: Path
    ) -> None:
        """As a search from Python; it is not distilled on other images."""
        made = json.loads((place / "found" / "run.json").read_text())
        del made["config"]["data"]
        (tmp_path / "run.json").write_text(json.dumps(made))
        (tmp_path / "found.json").write_bytes((place / "found" / "found.json").read_bytes())
        told = run(f"distill {tmp_path} --teacher none --epochs 1").mistake()
        assert told == "the run does not record its images; name them with --data"

    def test_named_student(self, run: Run, place: Path, tmp_path: Path) -> None:
        weights = place / "teacher" / "student.safetensors"
        line = f"{TRAIN} --student resnet20 --teacher resnet20 --teacher-weights {weights}"
        result = run(f"{line} --out {tmp_path / 'x'} --json").json
        assert result["student"] == "resnet20" and result["model_params"] == 272_474
        assert read_weights(tmp_path / "x" / "student.safetensors").keys()
        message = f"{tmp_path / 'x'} holds a training; name the folder of a search"
        assert run(f"distill {tmp_path / 'x'}").mistake() == message

    def test_start(
        self, run: Run, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        weights = place / "teacher" / "student.safetensors"
        line = f'{TRAIN} --student \'{{"blocks1": 1, "blocks2": 3, "blocks3": 1}}\''
        line += f" --teacher resnet20 --teacher-weights {weights} --lr 0.001"
        ran = run(f"{line} --out {tmp_path / 'a'} --json")
        assert ran.json["start"] == {"from": "teacher", "share": 1.0, "channels": "norm"}
        assert "the student starts from its teacher: 100% of its parameters" in ran.err
        with monkeypatch.context() as patch:  # the checkpoint brings all weights
            patch.setattr(
                "diswot.training.starts.inherit",
                lambda *given, **how: pytest.fail("inherited again"),
            )
            again = run(f"{line} --out {tmp_path / 'a'} --resume --json")
        assert again.json["start"] == ran.json["start"] and "starts" not in again.err
        message = run(f"{line} --out {tmp_path / 'a'} --resume --start fresh").mistake()
        assert "start = 'teacher', not 'fresh'" in message
        kept = tmp_path / "a" / "student.safetensors"
        result = run(f"{line} --out {tmp_path / 'b'} --start {kept} --json").json
        assert result["start"] == {"from": str(kept)}
        fresh = run(f"{line} --out {tmp_path / 'c'} --start fresh --json")
        assert fresh.json["start"] == {"from": "fresh"} and "starts" not in fresh.err
        again = run(f"{line} --out {tmp_path / 'c'} --resume --json")  # as it was begun
        assert again.json["start"] == {"from": "fresh"} and "starts" not in again.err
        assert fresh.json["train_accuracy"] < ran.json["train_accuracy"]
        alone = "--student resnet20 --teacher none --start teacher"
        message = run(f"{TRAIN} {alone} --out {tmp_path / 'd'}").mistake()
        assert "--start teacher needs a teacher" in message

    def test_a_teacher_of_other_images(self, run: Run, place: Path, tmp_path: Path) -> None:
        weights = place / "teacher" / "student.safetensors"
        line = "--data digits --image-size 6 --batch-size 256 --student resnet20"
        line += f" --teacher resnet20 --teacher-weights {weights} --teacher-image-size 8"
        train = f"distill {line} --epochs 1 --out {tmp_path / 'x'}"
        ran = run(f"{train} --json")
        assert (ran.json["image_size"], ran.json["teacher_image_size"]) == (6, 8)
        assert "the teacher sees images of 8 x 8 pixels, the student of 6 x 6" in ran.err
        assert run(f"{train} --resume --json").json == ran.json
        rest = train.replace(" --teacher-image-size 8", "")
        assert run(f"{rest} --resume --json").json["seconds"] == ran.json["seconds"]
        message = run(f"{rest} --resume --teacher-image-size 6").mistake()
        assert "has teacher_image_size = 8, not None" in message
        found = run(f"doctor {line} --images 100 --json").json["found"]
        assert {each["check"] for each in found} >= {"teacher's accuracy", "loss scale"}
        alone = "--student resnet20 --teacher none --teacher-image-size 8"
        message = run(f"{TRAIN} {alone} --out {tmp_path / 'y'}").mistake()
        assert message.endswith("leave --teacher-image-size out")

    def test_a_folder_of_another_command_is_not_taken(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "run.json").write_text("{}")
        message = run(f"{TRAIN} --student resnet20 --teacher none --out {tmp_path}").mistake()
        assert message.endswith("holds a search; name another folder")
        assert [path.name for path in tmp_path.iterdir()] == ["run.json"]

    def test_users_own_student(self, run: Run, here: Path, tmp_path: Path) -> None:
        line = f"{TRAIN} --student nets.py:loud --teacher none --out {tmp_path / 'x'} --json"
        assert run(line).json["student"] == f"{here.resolve()}/nets.py:loud"

    def test_what_belongs_to_the_search_goes_with_it(self, tmp_path: Path) -> None:
        config = {"teacher": "a", "teacher_weights": "w", "space": "s", "classes": 3}
        config |= {"data": "d", "data_root": "r", "image_size": 8, "batch_size": 4}
        (tmp_path / "run.json").write_text(json.dumps({"config": config}))
        (tmp_path / "found.json").write_text(json.dumps({"best": {"params": {"x": 1}}}))
        whole = subject_of(tmp_path, SubjectOptions())
        assert (whole.student, whole.space, whole.images) == (
            '{"x": 1}',
            "s",
            NamedImages("d", None, 8, "r"),
        )
        assert whole.teacher == TeacherOptions("a", Path("w"))
        other = subject_of(tmp_path, SubjectOptions(teacher="b"))
        assert (other.teacher, other.images.size) == (TeacherOptions("b"), 8)
        own = SubjectOptions(data="digits", teacher_weights=Path("v"))
        other = subject_of(tmp_path, own)
        assert (other.teacher, other.images) == (
            TeacherOptions("a", Path("v")),
            NamedImages("digits"),
        )

    def test_resume(self, run: Run, tmp_path: Path) -> None:
        line = f"{TRAIN} --student resnet20 --teacher none --out {tmp_path / 'x'} --json"
        first = run(line).json
        assert "holds a training already; resume it" in run(line).mistake()
        assert run(f"{line} --resume").json == first
        assert "has epochs = 1, not 2" in run(f"{line} --resume --epochs 2").mistake()
        assert "has another student" in run(f"{line} --resume --student resnet32").mistake()

    def test_folder_of_images(self, run: Run, tmp_path: Path) -> None:
        root = images(tmp_path / "data")
        line = f"{TRAIN} --data {root} --image-size 8 --batch-size 4 --student resnet20"
        assert run(f"{line} --teacher none --out {tmp_path / 'x'} --json").json["epochs"] == 1

    def test_a_teacher_of_more_classes(self, run: Run, tmp_path: Path) -> None:
        """Trained on ten digits, it teaches the two that the data has, by another name."""
        trained = tmp_path / "teacher"
        run(f"{TRAIN} --student resnet20 --teacher none --out {trained}")
        root = images(tmp_path / "data")
        names = tmp_path / "names.csv"
        names.write_text("".join(f"{n},{['dog', 'cat'][n] if n < 2 else ''}\n" for n in range(10)))
        line = f"{TRAIN} --data {root} --image-size 8 --batch-size 8 --student resnet20"
        line += f" --teacher resnet20 --teacher-weights {trained / 'student.safetensors'}"
        line += f" --out {tmp_path / 'x'}"
        assert "classes that teacher and data share, and they share 0" in run(line).mistake()
        result = run(f"{line} --teacher-classes {names} --json").json
        assert result["classes"] == 2 and result["teacher_classes"] == str(names)
        names.write_text(names.read_text().replace("cat", "cow"))
        line = line.replace(f"{tmp_path / 'x'}", f"{tmp_path / 'y'} --teacher-classes {names}")
        message = run(line).mistake()
        assert message.startswith("kd_standardised needs 2 classes that teacher and data share, ")
        ran = run(f"{line} --losses at:10")
        assert "the teacher has 1 of the 2 classes of the data (50%), not cat for one" in ran.err
        assert "10 at" in ran.out

    def test_images_without_labels(self, run: Run, place: Path, tmp_path: Path) -> None:
        weights = place / "teacher" / "student.safetensors"
        pool = images(tmp_path / "pool")
        line = f"{TRAIN} --student resnet20 --unlabelled {pool} --out {tmp_path / 'x'}"
        taught = f"{line} --teacher resnet20 --teacher-weights {weights}"
        assert run(f"{taught} --json").json["unlabelled"] == str(pool)
        assert run(f"{line} --teacher none").mistake() == (
            "images without labels need a teacher; leave --unlabelled out"
        )
        nothing = run(taught.replace(str(pool), str(tmp_path / "none"))).mistake()
        assert nothing.endswith("none, the folder of images without labels")

    @pytest.mark.usefixtures("imported_here")
    def test_no_labels_at_all(self, run: Run, place: Path, tmp_path: Path) -> None:
        pool, names = images(tmp_path / "pool"), tmp_path / "names.csv"
        names.write_text("".join(f"digit {n}\n" for n in range(10)))
        weights = place / "teacher" / "student.safetensors"
        line = f"distill --student resnet20 --teacher resnet20 --teacher-weights {weights}"
        line += f" --image-size 8 --epochs 1 --batch-size 8 --unlabelled {pool}"
        message = run(f"{line} --out {tmp_path / 'x'}").mistake()
        assert message.startswith("the classes are unknown: name those of the teacher")
        line += f" --teacher-classes {names}"
        message = run(f"{line} --losses dkd --out {tmp_path / 'x'}").mistake()
        assert message.startswith("dkd needs labels, and no training image has one")
        result = run(f"{line} --out {tmp_path / 'x'} --json").json
        assert (result["data"], result["classes"]) == (str(pool), 10)
        assert result["test_agreement"] in (0.0, 50.0, 100.0) and "test_accuracy" not in result
        row = json.loads((tmp_path / "x" / "history.jsonl").read_text())
        assert row["cross_entropy"] == 0 and row["loss"] == row["kd_standardised"] > 0
        assert "(agreement)" in run(f"{line} --out {tmp_path / 'x'} --resume").out
        checked = run(f"{line.replace('distill', 'doctor', 1)} --json").json["found"]
        assert "not looked at: no test image has a label that the teacher knows" in {
            each["text"] for each in checked
        }
        page = Path(run(f"report {tmp_path / 'x'} --json").json["report"]).read_text()
        assert "% of the test images as the teacher" in page and "(agreement)" in page
        assert run(f"export {tmp_path / 'x'} --format safetensors --json").json["trained"]
        ran = run(f"{TRAIN} --data none --student resnet20 --teacher none --out {tmp_path / 'y'}")
        assert ran.mistake().startswith("--data none trains on images without labels; name them")

    def test_recipe_and_options(self, run: Run, tmp_path: Path) -> None:
        recipe = tmp_path / "mine.toml"
        recipe.write_text('epochs = 2\nlr = 0.2\nschedule = "step"\nmilestones = [1]\nema = 0.5\n')
        line = "distill --data digits --image-size 8 --student resnet20 --teacher none"
        line += f" --batch-size 512 --recipe {recipe} --epochs 1 --cutout 2"
        how = run(f"{line} --json --out {tmp_path / 'x'}").json["recipe"]
        assert (how["epochs"], how["lr"], how["milestones"]) == (1, 0.2, [0.5])
        assert (how["ema"], how["cutout"], how["batch_size"]) == (0.5, 2, 512)
        assert not how["flip"] and how["losses"] == {}
        row = json.loads((tmp_path / "x" / "history.jsonl").read_text())
        assert row["images_per_second"] > 0

    def test_short_trainings_have_their_own_recipe(
        self, run: Run, place: Path, tmp_path: Path
    ) -> None:
        """The rate and the losses follow the start, unless they are given."""
        weights = place / "teacher" / "student.safetensors"
        line = f"{TRAIN} --student resnet20 --teacher resnet20 --teacher-weights {weights}"
        settings = ("lr", "losses", "cross_entropy", "schedule", "batch_size")

        def how(name: str, more: str) -> tuple[list[Any], str]:
            ran = run(f"{line} {more} --out {tmp_path / name} --json")
            return [ran.json["recipe"][key] for key in settings], ran.err

        taught, said = how("a", "")
        assert taught == [0.03, {"kd_standardised": 9}, 0.1, "onecycle", 256]
        assert "recipe short: 1 epoch, onecycle up to lr 0.03, 0.1 cross-entropy + 9 kd_sta" in said
        random, said = how("b", "--start fresh")
        assert random == [0.1, {"kd_standardised": 9, "at": 10}, 0.1, "onecycle", 256]
        assert how("b", "--resume") == (random, "")  # as it was begun, and nothing left to do
        assert how("c", "--start fresh --losses sp:3 --lr 0.2")[0] == [
            0.2, {"sp": 3}, 1, "onecycle", 256
        ]  # fmt: skip
        plain, said = how("d", "--recipe plain")
        assert plain == [0.05, {"kd": 1}, 1, "cosine", 256] and "recipe" not in said
        assert how("d", "--resume --epochs 1")[0] == plain
        message = run(f"{line} --out {tmp_path / 'd'} --resume --recipe short").mistake()
        assert "has batch" not in message and "not" in message

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ("--recipe cifr", "unknown recipe 'cifr'; did you mean cifar?"),
            ("--recipe none.toml", "cannot read none.toml: No such file"),
            ("--milestones a,b", "milestones are epochs with commas, not 'a,b'"),
            ("--recipe cifar --milestones 3,2", "milestones must be epochs that rise"),
            ("--cache", "cache needs images as they are"),
            ("--ema 1", "ema must be at least 0 and below 1"),
            ("--accumulate 7", "a batch of 64 images cannot be cut evenly into 7 parts"),
        ],
    )
    def test_impossible_recipes(self, run: Run, tmp_path: Path, options: str, message: str) -> None:
        line = "distill --data digits --image-size 8 --student resnet20 --teacher none"
        assert message in run(f"{line} {options} --out {tmp_path / 'x'}").mistake()
        assert not (tmp_path / "x").exists()

    def test_diverging(self, run: Run, tmp_path: Path) -> None:
        line = f"{TRAIN} --student resnet20 --teacher none --lr 1e8 --epochs 9 --quiet"
        message = run(f"{line} --out {tmp_path / 'x'}").mistake(1)
        assert "not finite at step" in message and "try a lower lr" in message


def images(root: Path) -> Path:
    """Two classes of five images."""
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for i in range(5):
            pixels = np.full((9, 8, 3), 20 * i + 10 * len(name), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


MISTAKES = [
    ("search --data noise --teacher resnet57", "unknown teacher 'resnet57'; did you mean resnet56"),
    (
        "search --data noise --teacher ''",
        "unknown teacher ''; known: detector:timm:resnet18+fcos, ",
    ),
    ("search --data noise --space s1", "unknown space 's1'; did you mean s0"),
    ("search --data digit", "unknown data 'digit'; did you mean digits"),
    ("search --data ''", "unknown data ''"),
    ("search --data nets.py", "nets.py, as "),
    ("search --data found/run.json", "found/run.json is a file; name a folder of images"),
    ("search --data .", "no images in "),
    ("search --data digits --classes 7", "digits has 10 classes, not 7"),
    ("search --data digits --batch-size 2000", "digits has 1437 training images, and the"),
    ("search --data noise --classes 1", "noise needs at least 2 classes, not 1"),
    (f"{SEARCH} --proxy diswott", "unknown proxy 'diswott'; did you mean diswot"),
    (f"{SEARCH} --sampler evolutions", "unknown sampler 'evolutions'; did you mean evolution"),
    (f"{SEARCH} --init gausian", "unknown initialisation 'gausian'; did you mean gaussian"),
    ("search --data hf:", "hf: names no data set"),
    (f"{SEARCH} --space nets.py:net", "net is no space: the first parameter of a space is the"),
    (f"{SEARCH} --max-params 0.4Q", "'0.4Q' is no number such as 400000, 0.4M or 1.2G"),
    (f"{SEARCH} --max-params -1", "'-1' is no number"),
    (f"{SEARCH} --max-params nan", "'nan' is no number"),
    (f"{SEARCH} --max-params inf", "'inf' is no number"),
    (f"{SEARCH} --max-params ''", "'' is no number"),
    (f"{SEARCH} --max-params 0", "above zero"),
    (f"{SEARCH} --max-macs 10km", "'10km' is no number"),
    (f"{SEARCH} --space nets.py:few --trials 3 --max-params 99", "no student fits the budget"),
    (f"{SEARCH} --space nets.py:few --trials 3 --max-macs 1K", "no student fits the budget"),
    (f"{SEARCH} --trials 0", "at least one trial"),
    (f"{SEARCH} --trials many", "Invalid value for '--trials'"),
    (f"{SEARCH} --batch-size 1", "at least 2 images, not 1"),
    (f"{SEARCH} --image-size 0", "at least 1 pixel a side, not 0"),
    (f"{SEARCH} --image-size -4", "at least 1 pixel a side, not -4"),
    (f"{SEARCH} --repeats 0", "repeats must be at least 1, not 0"),
    (f"{SEARCH} --seed -1", "Invalid value for '--seed'"),
    (f"{SEARCH} --teacher nets.py:no_classifier", "which does not fit noise with 10 classes"),
    (f"{SEARCH} --teacher nets.py:other_pixels", "the teacher cannot take images of shape"),
    (f"{SEARCH} --teacher nets.py:raising", "fails: ValueError: first second (line "),
    (f"{SEARCH} --teacher nets.py:number", "must return a torch module, not a int"),
    (f"{SEARCH} --teacher nets.py:nett", "unknown function in nets.py 'nett'; did you mean net"),
    (f"{SEARCH} --teacher nets.py", "name a function in nets.py, as nets.py:function"),
    (f"{SEARCH} --teacher none.py:f", "no such file: none.py"),
    (f"{SEARCH} --space none.py:f", "no such file: none.py"),
    (f"{SEARCH} --teacher broken.py:f", "broken.py fails to import: ZeroDivisionError"),
    (f"{SEARCH} --teacher-weights none.pt", "no such weights: none.pt"),
    (f"{SEARCH} --teacher-weights nets.py", "nets.py is no file of tensors"),
    (f"{SEARCH} --out nets.py", "nets.py"),
    (f"{SEARCH} --out nets.py/run", "nets.py/run"),
    (f"{SEARCH} --storage foo://x", "cannot open foo://x"),
    (f"{SEARCH} --storage sqlite:////none/x.db", "cannot open sqlite:////none/x.db"),
    (f"{SEARCH} --storage runs/a", "--storage runs/a is no URL, as sqlite:///studies.db; a folder"),
    (f"{SEARCH} --out nets.py", "nets.py cannot be used: it is a file, or in one"),
    (f"{SEARCH} extra", "unexpected extra argument"),
    (f"{SEARCH} --sed 3", "No such option: --sed"),
    ("serch", "No such command 'serch'. Did you mean 'search'?"),
    ("score", "Missing option '--student'"),
    (f"{SCORE} --student '{{'", "the student's parameters are not JSON: "),
    (f"{SCORE} --student '[3, 3, 3]'", "unknown student '[3, 3, 3]'"),
    (f"{SCORE} --student ''", "unknown student ''; known: "),
    (f"{SCORE} --student resnet21", "unknown student 'resnet21'; did you mean "),
    (f"{SCORE} --student '{{\"blocks1\": 3}}'", "parameter 'blocks2' is missing"),
    (f"{SCORE} --student nets.py:other_pixels", "mat1 and mat2 shapes cannot be multiplied"),
    (f"{SCORE} --student nets.py:no_classifier", "must return one tensor of logits"),
    (f"{SCORE} --student resnet20 --proxies x", "unknown proxy 'x'"),
    (f"{SCORE} --student resnet20 --proxies ''", "unknown proxy ''"),
    ("distill", "name a student: the folder of a search, or --student"),
    ("distill none", "none is no folder of a search: it has no run.json"),
    ("distill nets.py", "nets.py is no folder of a search"),
    ("distill --student resnet20", "name a teacher, or none to train alone"),
    (f"{TRAIN} --student resnet20 --teacher none --resume", "name what to resume: the training's"),
    (f"{TRAIN} --student resnet20 --teacher none --no-out --out x", "--out or --no-out, not both"),
    (f"{TRAIN} --student resnet20 --teacher none --no-out --tensorboard", "leave --no-out out"),
    (f"{TRAIN} --student x --teacher none --out x", "unknown student 'x'"),
    (f"{TRAIN} --student resnet20 --teacher x --out x", "unknown teacher 'x'; known: "),
    (
        f"{TRAIN} --student resnet20 --teacher resnet20 --out x",
        "--teacher-weights, or --trained if",
    ),
    (f"{SEARCH} --data ./none", "no such folder or file of images: ./none"),
    (
        f"{SEARCH} --data-root .",
        "--data-root goes with cifar10, cifar100, imagenet16-120, not with noise",
    ),
    (f"{SEARCH} --latency-threads 2", "--latency-threads go with what measures latency"),
    (f"{SEARCH} --latency-engine onnx", "--latency-threads go with what measures latency"),
    (f"{SEARCH} --verify-epochs 2", "--verify-epochs goes with --verify"),
    (f"{SEARCH} --verify-trials 2", "--verify-trials goes with --verify"),
    (f"{SCORE} --student resnet20 --latency-threads 2", "--latency of a score"),
    ("rank --table mine.csv --resume", "name what to resume: the --out of a rank study"),
    ("rank --from mine.csv --resume --out x", "name what to resume: the --out of a rank study"),
    (
        f"{SEARCH} --no-out --study mine",
        "--study goes with --storage or --out: nothing is kept without",
    ),
    ("search --data imagenet16-120 --data-root .", "make it up; --data-root names where they are"),
    (f"{SEARCH} --resume", "name what to resume: the search's --out, or its --storage"),
    (f"{TRAIN} --student resnet20 --teacher none --data noise --out x", "noise has no images to"),
    (f"{TRAIN} --student resnet20 --teacher none --out nets.py", "cannot write nets.py/checkpoint"),
    (f"{TRAIN} --student nets.py:other_pixels --teacher none --out x", "student cannot take"),
    (f"{TRAIN} --student nets.py:no_classifier --teacher none --out x", "student gives (2, 8, 6"),
    (f"{TRAIN} --losses kdd --student resnet20 --teacher none --out x", "did you mean kd"),
    (f"{TRAIN} --losses kd:x --student resnet20 --teacher none --out x", "'x' is no weight for kd"),
    (f"{TRAIN} --losses '' --student resnet20 --teacher none --out x", "no loss is named"),
    (f"{TRAIN} --losses kd:1 --student resnet20 --teacher none --out x", "a use for --losses"),
    (f"{TRAIN} --temperature 2 --student resnet20 --teacher none --out x", "use for --temperature"),
    (f"{TRAIN} --student resnet20 --teacher none --teacher-weights w --out x", "without a teacher"),
    (f"{TRAIN} --schedule cosin --student resnet20 --teacher none --out x", "did you mean cosine"),
    (f"{TRAIN} --precision fp23 --student resnet20 --teacher none --out x", "did you mean fp32"),
    (f"{TRAIN} --lr 0 --student resnet20 --teacher none --out x", "lr must be above 0"),
    (f"{TRAIN} --lr nan --student resnet20 --teacher none --out x", "lr must be above 0"),
    (f"{TRAIN} --epochs 0 --student resnet20 --teacher none --out x", "epochs must be at least 1"),
    (f"{TRAIN} --batch-size 1 --student resnet20 --teacher none --out x", "batch_size must be at"),
    (f"{TRAIN} --cross-entropy -1 --student resnet20 --teacher none --out x", "cross_entropy must"),
    (f"{TRAIN} --cross-entropy 0 --student resnet20 --teacher none --out x", "nothing to learn"),
    ("list sampler", "unknown list 'sampler'; did you mean samplers"),
    ("list '' ", "unknown list ''; known: data, inits, "),
]


@pytest.mark.parametrize(("line", "message"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_a_mistake_is_told_in_one_line(
    run: Run, here: Path, line: str, message: str, tmp_path: Path
) -> None:
    (here / "broken.py").write_text("1 / 0")
    before = sorted(here.iterdir())
    assert message in run(f"{line} --json" if line != "serch" else line).mistake()
    assert sorted(here.iterdir()) == before


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"config": 3}', '{"best": {}}', None])
@pytest.mark.parametrize("name", ["run.json", "found.json"])
def test_a_damaged_run_folder(
    run: Run, place: Path, tmp_path: Path, name: str, damage: str | None
) -> None:
    for kept in ("run.json", "found.json"):
        (tmp_path / kept).write_bytes((place / "found" / kept).read_bytes())
    if damage is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(damage)
    message = run(f"distill {tmp_path} --teacher none --epochs 1").mistake()
    assert str(tmp_path) in message
    if damage is None:
        reason = "no folder of a search" if name == "run.json" else "has not finished; continue it"
        assert reason in message


class TestWeights:
    def test_of_another_network(self, run: Run, place: Path) -> None:
        line = f"{SEARCH} --teacher resnet32 --teacher-weights {place}/teacher/student.safetensors"
        assert "does not fit the network: it lacks layer1.3" in run(line).mistake()

    def test_malicious(self, run: Run, tmp_path: Path) -> None:
        class Bomb:
            def __reduce__(self) -> tuple[object, tuple[str]]:
                return os.mkdir, (str(tmp_path / "trap"),)

        torch.save({"fc.weight": Bomb()}, tmp_path / "w.pt")
        message = run(f"{SEARCH} --teacher-weights {tmp_path / 'w.pt'}").mistake()
        assert "is no file of tensors and plain values" in message
        assert not (tmp_path / "trap").exists()


class TestDoctor:
    LINE = "doctor --data digits --image-size 8 --batch-size 256 --student resnet20"

    def test_findings(self, run: Run, place: Path) -> None:
        weights = place / "teacher" / "student.safetensors"
        line = f"{self.LINE} --teacher resnet20 --teacher-weights {weights} --images 200"
        result = run(f"{line} --mean 0 --std 0.004 --json").json
        assert result.keys() == {"wrong", "warnings", "found"}
        levels = {each["check"]: each["level"] for each in result["found"]}
        assert levels["label balance"] == "good" and levels["image range"] == "warning"
        assert result["wrong"] == [each["level"] for each in result["found"]].count("wrong")
        ran = run(f"{line} --losses kd:published,fitnet")
        assert "the student starts from its teacher: 100%" in ran.err
        assert len(ran.out.splitlines()) == 12
        assert "adapters: fitnet learns" in ran.out and "0.9 kd is" in ran.out
        assert " wrong, " in ran.out.splitlines()[-1]

    @pytest.mark.parametrize("start", ["", "--start fresh"])
    def test_losses_are_those_of_the_first_step(
        self, run: Run, place: Path, tmp_path: Path, start: str
    ) -> None:
        """One step on all images, as they are: the order makes no difference."""
        weights = place / "teacher" / "student.safetensors"
        line = f"--data digits --image-size 8 --batch-size 1437 --crop 0 --student resnet20 {start}"
        line += f" --teacher resnet20 --teacher-weights {weights} --precision fp32 --losses kd:2"
        found = run(f"doctor {line} --images 100 --json").json["found"]
        (text,) = (each["text"] for each in found if each["check"] == "loss scale")
        run(f"distill {line} --epochs 1 --out {tmp_path / 'x'} --json")
        row = json.loads((tmp_path / "x" / "history.jsonl").read_text())
        assert text.startswith(f"2 kd is {row['kd']:.3g} at the first step")

    def test_it_needs_a_teacher(self, run: Run) -> None:
        assert run(f"{self.LINE} --teacher none").mistake().endswith("name a teacher: --teacher")
        assert "a teacher must be trained" in run(f"{self.LINE} --teacher resnet20").mistake()


class TestList:
    def test_all(self, run: Run) -> None:
        listed = run("list --json").json
        kinds = {
            "tasks",
            "teachers",
            "spaces",
            "data",
            "proxies",
            "losses",
            "recipes",
            "samplers",
            "inits",
        }
        assert listed.keys() == kinds
        for rows in listed.values():
            for name, (what, *_) in rows.items():
                assert what and "\n" not in what, name
        assert listed["teachers"]["resnet56"][0] == "CIFAR ResNet, 862K params for 100 classes"

    @pytest.mark.parametrize("what", ["teachers", "spaces", "data", "proxies", "losses"])
    def test_one(self, run: Run, what: str) -> None:
        ran = run(f"list {what}")
        names = run(f"list {what} --json").json[what]
        assert ran.status == 0 and ran.err == "" and all(name in ran.out for name in names)

    def test_losses_show_their_published_settings(self, run: Run) -> None:
        shown = {name: row[2] for name, row in run("list losses --json").json["losses"].items()}
        assert shown["kd"] == "weight 0.9, T 4, cross-entropy 0.1"
        assert shown["kd_standardised"] == "weight 9, T 2, cross-entropy 0.1"
        assert shown["dkd"] == "weight 1, T 4, growing over 20 of 240 epochs"
        assert shown["pkd"] == "weight 6" and shown["dist_standardised"] == "T 2"
        assert shown["at"] == "" == shown["diswot"]

    def test_which_teachers_fit_is_said(self, run: Run) -> None:
        listed = run("list proxies --json").json["proxies"]
        needs = {name: row[1].split(", ") for name, row in listed.items()}
        equal = [name for name, need in needs.items() if "teacher of equal width" in need]
        assert equal == ["diswot", "semantic"]
        assert "teacher" in needs["relation"] and "teacher" not in needs["params"]


class TestProcess:
    def test_what_commands_do_is_told_in_full(self, run: Run) -> None:
        lines = run("--help").out.partition("Commands:")[2].splitlines()[1:]
        assert len(lines) == 10 and all(line[-1] in ".?" for line in lines)
        assert not any("..." in line for line in lines)

    def test_import_and_help_stay_quick_by_construction(self) -> None:
        code = """
import sys
import diswot
assert {"search", "distill", "score"} <= set(dir(diswot))
from diswot.cli import main, score_names
from diswot.cli.inputs import NamedImages
for line in (["--help"], [], ["search", "--help"], ["distill", "--help"], ["--version"]):
    main(line)
heavy = {"torch", "optuna", "matplotlib", "numpy", "torchvision", "sklearn", "accelerate", "timm"}
assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
"""
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert ran.returncode == 0 and ran.stderr == ""
        for text in ("Usage: diswot [OPTIONS]", "--max-params", "--teacher-weights", "0.1.0"):
            assert text in ran.stdout

    def test_a_search_does_without_the_compiler(self) -> None:
        code = f"""
import sys
from diswot.cli import main, score_names
from diswot.cli.inputs import NamedImages
for proxy in ("naswot", "default"):
    assert not main("{SEARCH} --trials 1 -q --no-out --proxy ".split() + [proxy])
assert "torch" in sys.modules and "torch._dynamo" not in sys.modules
"""
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert (ran.returncode, ran.stderr) == (0, "")

    def test_the_installed_command(self) -> None:
        command = Path(sys.executable).parent / "diswot"
        ran = subprocess.run([command, "--version"], capture_output=True, text=True)
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"{diswot.__version__}\n", "")

    @pytest.mark.parametrize("line", ["list samplers --json", "--help"])
    def test_broken_pipe(self, line: str) -> None:
        command = f"{sys.executable} -m diswot {line} | true; exit ${{PIPESTATUS[0]}}"
        ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
        assert ran.returncode in (0, 1) and ran.stderr == ""

    def test_interrupted_and_resumed(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "slow.py").write_text(NETS + SLOW)
        place = tmp_path / "run"
        line = f"search --teacher resnet20 {SMALL} --space {tmp_path}/slow.py:slow --trials 30"
        line += " --proxy relation"
        command = [sys.executable, "-m", "diswot", *shlex.split(line), "--out", str(place)]
        process = subprocess.Popen(command, stdout=-1, stderr=-1, text=True)
        journal, deadline = place / "study.journal", time.monotonic() + 60
        while time.monotonic() < deadline:
            if journal.exists() and journal.read_bytes().count(b'"end"') >= 3:
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        message = Ran(process.returncode, out, without_waiting(err)).mistake(130)
        assert message == f"stopped; --resume continues {place}"
        assert not (place / "found.json").exists()
        assert "has not finished" in run(f"distill {place} --teacher none").mistake()
        monkeypatch.setattr(time, "sleep", lambda seconds: None)
        resumed = run(f"{line} --out {place} --resume --json").json
        assert resumed["scored"] == 30 and resumed["reused"] == resumed["failed"] == 0
        straight = run(f"{line} --json").json
        for one, other in zip(resumed["top"], straight["top"], strict=True):
            assert {**one, "trial": 0} == {**other, "trial": 0}

    def test_full_disk(self, run: Run, tmp_path: Path) -> None:
        train = f"{TRAIN} --student resnet20 --teacher none --epochs 2 --out {tmp_path}/x --quiet"
        search = f"{SEARCH} --trials 20 --json --out {tmp_path}/y"
        with full_disk(9000):
            failures = run(train).mistake(), run(search)
        assert failures[0].startswith(f"cannot write {tmp_path}/x/checkpoint.pt: ")
        assert not list((tmp_path / "x").iterdir())
        assert failures[1].status in (1, 2) and "arge" in failures[1].mistake(failures[1].status)
        resumed = run(f"{search} --resume").json
        assert resumed["scored"] + resumed["reused"] == 20 and resumed["failed"] == 0
        first = run(f"{search.replace('--json', '')} --resume").out.splitlines()[0]
        assert first.endswith(f") in {resumed['seconds']:.1f} s")

    @pytest.mark.parametrize(("out", "written"), [(True, True), (True, False), (False, False)])
    def test_ctrl_c_says_how_to_go_on(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: bool, written: bool
    ) -> None:
        def stop(*args: object, **options: object) -> None:
            if written:
                (tmp_path / "study.journal").touch()
            raise KeyboardInterrupt

        monkeypatch.setattr("diswot.nas.api.search", stop)
        message = run(f"{SEARCH} {f'--out {tmp_path}' if out else '--no-out'}").mistake(130)
        hint = f"--resume continues {tmp_path}" if written else "nothing is kept"
        assert message == f"stopped; {hint}"

    def test_ctrl_c_where_nothing_can_be_resumed(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "own.py").write_text("def network(num_classes): raise KeyboardInterrupt")
        line = f"score --student {tmp_path}/own.py:network --data noise --proxies params"
        assert run(line).mistake(130) == "stopped"


@pytest.mark.slow
def test_the_contract() -> None:
    """The two commands of the contract, word for word."""
    line = "search --teacher resnet56 --space s0 --data noise --classes 100 --trials 64 --seed 0"
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        found = call(f"{line} --out {folder}/RUN --json").json
    keys = ["best", "trials", "scored", "failed", "seconds", "seconds_per_candidate", "top"]
    assert all(key in found for key in keys)
    best = found["best"]
    assert isinstance(best["params"], dict) and len(found["top"]) == 10
    assert {"params", "score", "model_params", "macs"} <= best.keys()
    assert found["trials"] == found["scored"] == 64 and found["failed"] == 0
    options = "--teacher resnet56 --space s0 --data noise --classes 100 --seed 0 --json"
    hand = '{"blocks1":3,"blocks2":3,"blocks3":3}'
    scored = call(f"score {options} --student", hand).json
    assert isinstance(scored["scores"], dict) and scored["scores"]["params"] == 278_324
    again = call(f"score {options} --student", json.dumps(best["params"])).json
    assert again["scores"]["default"] == best["score"]

"""The training loop."""

from __future__ import annotations

import copy
import json
import math
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_training import (
    LEARNED,
    LONG,
    SHORT,
    at_step,
    curve,
    digits,
    interrupt,
    made,
    measure_result,
    split_of,
    states_equal,
    teacher,
    wide_teacher,
)
from torch import Tensor, nn
from torch.nn.functional import interpolate
from toys import CLASSES, ClassToken, FlattenedGrid, LinearHead, Noisy, Returning, seeded

import diswot
from diswot.data.dataset import UNLABELLED, whole
from diswot.data.registry import create_dataset
from diswot.errors import UserError
from diswot.knowledge.losses import outputs
from diswot.knowledge.registry import KNOWLEDGE, get_distance
from diswot.models.class_names import select_classes
from diswot.models.registry import create_teacher
from diswot.models.resized import ResizedInput
from diswot.observation.observe import record
from diswot.spaces.cifar_resnet import CifarResNet
from diswot.storage.run_files import TRAINED
from diswot.training.checkpoint import CHECKPOINT, HISTORY, WEIGHTS
from diswot.training.distill import distill


class TestLearning:
    def test_alone(self) -> None:
        trained = distill(None, seeded(LinearHead), digits(), LONG)
        losses = [row["loss"] for row in trained.history]
        assert losses[-1] < 0.5 * losses[0]
        assert trained.test_accuracy > LEARNED and trained.history[-1]["train_accuracy"] > LEARNED
        assert not trained.student.training

    def test_from_the_teacher_alone(self) -> None:
        """Labels say nothing, and what is learned is what the teacher says."""
        train = digits().train
        assert train is not None
        images, labels = whole(train)
        blind = replace(digits(), train=split_of(images, torch.zeros_like(labels)))
        recipe = replace(LONG, cross_entropy=0.0)
        assert distill(teacher(), seeded(LinearHead), blind, recipe).test_accuracy > LEARNED

    def test_a_teacher_of_some_of_the_classes(self) -> None:
        """At the first step, the distance is that of the shared outputs of all images."""
        master, student = teacher(), seeded(LinearHead)
        select_classes(master, [3, 1], (3, 8, 8))
        train = digits().train
        assert train is not None
        images = digits().normalise(whole(train)[0])
        with torch.no_grad():
            taught = outputs(master.eval()(images), torch.zeros(330, dtype=torch.int64))
            shown = copy.deepcopy(student).train()(images)[:, [3, 1]]
            by_hand = get_distance("kd").between(taught, outputs(shown, taught.targets))
        recipe = replace(SHORT, epochs=1, batch_size=330, crop=0, cache=True)
        trained = distill(master, student, digits(), recipe, teacher_classes=(3, 1))
        assert trained.history[0]["kd"] == pytest.approx(float(by_hand), rel=1e-4)
        recipe = replace(LONG, losses={"kd": 1.0, "at": 1.0})
        trained = distill(master, seeded(LinearHead), digits(), recipe, teacher_classes=(3, 1))
        assert trained.test_accuracy > LEARNED

    def test_a_teacher_of_none_of_the_classes(self) -> None:
        master = seeded(LinearHead, 3)
        select_classes(master, [0, 1, 2], (3, 8, 8))
        none = (-1, -1, -1)
        with pytest.raises(UserError, match="kd needs 2 classes that teacher and data share"):
            distill(master, seeded(LinearHead), digits(), SHORT, teacher_classes=none)
        recipe = replace(SHORT, losses={"at": 1.0})
        trained = distill(master, seeded(LinearHead), digits(), recipe, teacher_classes=none)
        assert trained.history[-1]["at"] > 0
        with pytest.raises(UserError, match="gives logits for 3 classes, and digits has 5"):
            distill(master, seeded(LinearHead), digits(), recipe)

    @pytest.mark.parametrize("losses", [{"kd": 1.0}, {"kd": 1.0, "at": 1.0}])
    def test_a_teacher_of_other_images(self, tmp_path: Path, losses: dict[str, float]) -> None:
        """It sees the student's images, altered alike and resized."""
        master, student = teacher(), seeded(LinearHead)
        train = digits().train
        assert train is not None
        images = digits().normalise(whole(train)[0])
        small = interpolate(images, (6, 6), mode="bilinear", antialias=True)
        with torch.no_grad():
            logits = (master.eval()(small), copy.deepcopy(student).train()(images))
            pair = [outputs(each, torch.zeros(330, dtype=torch.int64)) for each in logits]
            by_hand = get_distance("kd").between(*pair)
        recipe = replace(SHORT, epochs=1, batch_size=330, crop=0, losses=losses)
        resized = ResizedInput(master, 6)
        trained = distill(resized, student, digits(), recipe, out=tmp_path)
        assert trained.history[0]["kd"] == pytest.approx(float(by_hand), rel=1e-4)
        with pytest.raises(UserError, match="has teacher_image_size = 6, not None"):
            distill(master, seeded(LinearHead), digits(), recipe, out=tmp_path, resume=True)

    def test_no_labels_at_all(self) -> None:
        """The agreement is the share of test images on which both networks answer alike."""
        train, test = digits().train, digits().test
        assert train is not None and test is not None
        splits = [
            split_of(images, torch.full_like(labels, UNLABELLED))
            for images, labels in (whole(train), whole(test))
        ]
        data = replace(digits(), train=splits[0], test=splits[1])
        trained = distill(teacher(), seeded(LinearHead), data, LONG)
        answers = [
            model(data.normalise(whole(test)[0])).argmax(1)
            for model in (teacher().eval(), trained.student)
        ]
        alike = 100 * float((answers[0] == answers[1]).float().mean())
        assert trained.test_agreement == pytest.approx(alike) and alike > LEARNED
        assert math.isnan(trained.test_accuracy) and "test agreement" in repr(trained)
        assert trained.plot().data[1].name == "test images, agreement with the teacher"
        with pytest.raises(UserError, match="dkd needs labels, and no training image has one"):
            distill(teacher(), seeded(LinearHead), data, replace(LONG, losses={"dkd": 1.0}))
        labelled = replace(data, train=train)
        with pytest.raises(UserError, match="need a teacher with the classes"):
            distill(None, seeded(LinearHead), labelled, LONG)

    def test_the_result_as_a_table(self) -> None:
        pytest.importorskip("pandas", reason="needs the extra pandas")
        trained = distill(None, seeded(LinearHead), digits(), SHORT)

        frame = trained.to_dataframe()

        assert list(frame.index) == [row["epoch"] for row in trained.history]
        assert frame["loss"].tolist() == [row["loss"] for row in trained.history]
        assert trained._repr_html_().count("<tr>") == SHORT.epochs + 1
        drawn = {each["name"]: each for each in trained.plot().to_plotly_json()["data"]}
        assert list(drawn) == ["training images, augmented", "test images"]
        tested = drawn["test images"]
        assert list(tested["x"]) == frame.index.tolist()
        assert list(tested["y"]) == frame["test_accuracy"].tolist()
        accuracy = trained.history[-1]["test_accuracy"]
        assert repr(trained).startswith(f"Distilled(test accuracy {accuracy:.2f} % after ")

    def test_history(self) -> None:
        losses = {"kd": 0.5, "semantic": 2.0, "relation": 3.0}
        recipe = replace(SHORT, losses=losses, cross_entropy=0.7)
        trained = distill(teacher(), seeded(LinearHead), digits(), recipe)
        for number, row in enumerate(trained.history, 1):
            parts = {"cross_entropy", *losses}
            others = {"epoch", "loss", "train_accuracy", "test_accuracy", "lr", "seconds"}
            others |= {"images_per_second"}
            assert row.keys() == parts | others and row["epoch"] == number
            assert row["loss"] == pytest.approx(sum(row[name] for name in parts), rel=1e-5)
        assert trained.seconds == pytest.approx(sum(row["seconds"] for row in trained.history))
        assert trained.test_accuracy == trained.history[-1]["test_accuracy"]

    @pytest.mark.parametrize("name", ["kd", "semantic", "relation"])
    def test_a_loss_is_the_distance_times_its_weight(self, name: str) -> None:
        recipe = replace(SHORT, epochs=1, batch_size=1000, crop=0, cross_entropy=0.0)
        train = digits().train
        assert train is not None
        images, labels = whole(train)
        student = seeded(LinearHead).train()
        with torch.no_grad():
            pair = [record(m, digits().normalise(images), labels) for m in (teacher(), student)]
        expected = float(get_distance(name).distance(*pair))
        for weight in (1.0, 2.5):
            settings = replace(recipe, losses={name: weight})
            trained = distill(teacher(), seeded(LinearHead), digits(), settings)
            assert trained.history[0][name] == pytest.approx(weight * expected, rel=1e-3)

    @pytest.mark.parametrize("taught", [False, True])
    def test_cross_entropy_is_weighted(self, taught: bool) -> None:
        rows = []
        for weight in (1.0, 0.25):
            recipe = replace(SHORT, epochs=1, batch_size=1000, losses={}, cross_entropy=weight)
            master = teacher() if taught else None
            rows.append(distill(master, seeded(LinearHead), digits(), recipe).history[0])
        assert rows[1]["cross_entropy"] == pytest.approx(rows[0]["cross_entropy"] / 4)

    def test_a_loss_moves_the_student(self) -> None:
        weights = [
            distill(teacher(), seeded(LinearHead), digits(), replace(SHORT, losses=losses)).student
            for losses in (
                {"kd": 1.0},
                {"kd": 1.0, "relation": 10.0},
                {"kd": 1.0, "semantic": 10.0},
            )
        ]
        assert not states_equal(weights[0], weights[1])
        assert not states_equal(weights[0], weights[2])

    @pytest.mark.parametrize("schedule", ["cosine", "onecycle"])
    @pytest.mark.parametrize("momentum", [0.0, 0.9])
    def test_learning_rates(self, schedule: str, momentum: float) -> None:
        recipe = replace(SHORT, schedule=schedule, momentum=momentum, epochs=3)
        rates = [row["lr"] for row in distill(None, seeded(LinearHead), digits(), recipe).history]
        assert 0 < rates[-1] < 0.01 * recipe.lr and max(rates) <= recipe.lr

    def test_distances_that_need_equal_widths_are_refused(self) -> None:
        """All others are trained on, stopped and resumed in the tests of losses."""
        student = CifarResNet((1, 1, 1), CLASSES, (8, 16, 24))
        for name in (name for name, row in KNOWLEDGE.items() if row.same_width):
            with pytest.raises(UserError, match=f"{name} needs"):
                recipe = replace(SHORT, losses={name: 0.1})
                distill(wide_teacher(), student, digits(96, 20), recipe)

    def test_what_a_loss_learns_moves_and_comes_back(self, tmp_path: Path) -> None:
        recipe = replace(SHORT, lr=0.05, losses={"fitnet": 1.0}, epochs=6)
        student = CifarResNet((1, 1, 1), CLASSES, (8, 16, 24))
        trained = distill(wide_teacher(), student, digits(96, 20), recipe, out=tmp_path)
        values = [row["fitnet"] for row in trained.history]
        assert values[-1] < 0.8 * values[0]
        kept = torch.load(tmp_path / CHECKPOINT, weights_only=True)
        assert kept["losses"] and kept["student"].keys() == student.state_dict().keys()

    def test_bf16(self) -> None:
        losses = {"kd": 1.0, "semantic": 1.0, "relation": 1.0}
        recipe = replace(LONG, precision="bf16", losses=losses)
        trained = distill(teacher(), seeded(LinearHead), digits(), recipe)
        assert trained.history[-1]["loss"] < 0.5 * trained.history[0]["loss"]
        assert trained.test_accuracy > LEARNED
        assert all(p.dtype == torch.float32 for p in trained.student.parameters())

    def test_the_first_step_in_bf16_is_that_in_fp32(self) -> None:
        """Up to the rounding of bf16, which has 8 bits; later steps part."""
        once = replace(LONG, epochs=1, batch_size=330)
        half, full = (
            distill(teacher(), seeded(LinearHead), digits(), replace(once, precision=precision))
            for precision in ("bf16", "fp32")
        )
        for name in ("cross_entropy", "kd"):
            assert half.history[0][name] == pytest.approx(full.history[0][name], rel=2**-7)
            assert half.history[0][name] != full.history[0][name]

    def test_cifar_resnets(self) -> None:
        student, master = create_teacher("resnet20", CLASSES), create_teacher("resnet32", CLASSES)
        recipe = replace(SHORT, epochs=1, batch_size=64)
        few = digits(70, 20)
        assert distill(master, student, few, recipe).history[0]["kd"] > 0


class TestCallbacks:
    def test_on_step_gets_the_step_and_the_last_row(self) -> None:
        calls: list[Any] = []
        recipe = replace(SHORT, batch_size=165)
        distill(None, seeded(LinearHead), digits(), recipe, on_step=lambda *c: calls.append(c))
        assert [call[:2] for call in calls] == [(1, 4), (2, 4), (3, 4), (4, 4)]
        assert calls[1][2] == {} and calls[2][2]["epoch"] == 1

    def test_on_read_gets_all_images(self) -> None:
        calls: list[tuple[int, int]] = []
        distill(None, seeded(LinearHead), digits(), SHORT, on_read=lambda *c: calls.append(c))
        assert calls == [(330, 430), (430, 430)]


class TestRepeatable:
    def test_same_call_same_curve(self) -> None:
        runs = [distill(teacher(), seeded(Noisy), digits(), SHORT) for _ in range(2)]
        assert curve(runs[0]) == curve(runs[1]) and states_equal(runs[0].student, runs[1].student)

    def test_without_a_recipe_a_transformer_trains_as_one(self, tmp_path: Path) -> None:
        class Stop(Exception):
            pass

        def stop(*call: object) -> None:
            raise Stop

        with pytest.raises(Stop):
            distill(None, seeded(ClassToken), digits(), out=tmp_path, on_epoch=stop)
        kept = torch.load(tmp_path / CHECKPOINT, weights_only=True)
        assert kept["facts"]["optimizer"] == "adamw" and kept["facts"]["warmup_epochs"] == 12
        assert 0 < kept["history"][0]["lr"] < 0.1 * kept["facts"]["lr"]

    def test_another_seed_another_curve(self) -> None:
        runs = [distill(None, seeded(Noisy), digits(), replace(SHORT, seed=s)) for s in (0, 1)]
        assert curve(runs[0]) != curve(runs[1])

    def test_global_random_states_are_not_touched(self) -> None:
        before = torch.get_rng_state(), np.random.get_state(), random.getstate()
        distill(teacher(), seeded(Noisy), digits(), SHORT)
        assert torch.equal(torch.get_rng_state(), before[0])
        assert np.array_equal(np.random.get_state()[1], before[1][1])
        assert random.getstate() == before[2]

    def test_global_random_states_do_not_matter(self) -> None:
        runs = []
        for seed in (1, 2):
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)
                runs.append(distill(None, seeded(Noisy), digits(), SHORT))
        assert curve(runs[0]) == curve(runs[1])


class TestTeacher:
    @pytest.mark.parametrize("fails", [False, True])
    def test_is_left_as_it_was(self, fails: bool) -> None:
        master = teacher().train()
        master.block1.eval()
        master.fc.bias.requires_grad_(False)
        before = copy.deepcopy(master)
        if fails:
            with pytest.raises(KeyboardInterrupt):
                distill(master, seeded(LinearHead), digits(), SHORT, on_step=at_step(3, interrupt))
        else:
            distill(master, seeded(LinearHead), digits(), SHORT)
        assert states_equal(master, before)
        for one, other in zip(master.modules(), before.modules(), strict=True):
            assert one.training == other.training and not one._forward_hooks
        for weight, old in zip(master.parameters(), before.parameters(), strict=True):
            assert weight.requires_grad == old.requires_grad and weight.grad is None

    def test_is_not_the_student(self) -> None:
        student = seeded(LinearHead)
        with pytest.raises(UserError, match="cannot be its own teacher"):
            distill(student, student, digits(), SHORT)


RESUMED = {
    "in an epoch": ({}, 15),
    "before the first checkpoint": ({}, 1),
    "after a checkpoint": ({"schedule": "onecycle", "ema": 0.9}, 11),
    "adamw": ({"optimizer": "adamw", "warmup_epochs": 1.5, "lr": 0.01, "ema": 0.9}, 15),
    "lamb": ({"optimizer": "lamb", "schedule": "step", "milestones": (1.5,)}, 20),
    "mixed": ({"mixup": 0.5, "cutmix": 1.0, "randaugment": 9, "flip": True}, 15),
}


class TestResume:
    @pytest.mark.parametrize(("settings", "stop"), RESUMED.values(), ids=RESUMED)
    def test_stopped_and_resumed_is_bit_identical(
        self, tmp_path: Path, settings: dict[str, Any], stop: int
    ) -> None:
        """There are ten steps an epoch."""
        recipe = replace(SHORT, epochs=3, **settings)
        straight = distill(teacher(), seeded(Noisy), digits(), recipe)
        interrupted = at_step(stop, interrupt)
        with pytest.raises(KeyboardInterrupt):
            distill(teacher(), seeded(Noisy), digits(), recipe, out=tmp_path, on_step=interrupted)
        student = seeded(Noisy, 99 if stop > 10 else 0)
        resumed = distill(teacher(), student, digits(), recipe, out=tmp_path, resume=True)
        assert curve(resumed) == curve(straight)
        assert states_equal(resumed.student, straight.student)
        lines = (tmp_path / HISTORY).read_text().splitlines()
        assert [json.loads(line) for line in lines] == list(resumed.history)

    def test_killed_in_the_middle_of_an_epoch(self, tmp_path: Path) -> None:
        code = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
import torch
torch.set_num_threads(1)
from dataclasses import replace
from tiny_training import SHORT, at_step, distill, made
from toys import Noisy, seeded
kill = at_step(25, lambda: os.kill(os.getpid(), signal.SIGKILL))
distill(None, seeded(Noisy), made(), replace(SHORT, epochs=4), out=sys.argv[1], on_step=kill)
"""
        run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True)
        assert run.returncode == -signal.SIGKILL, run.stderr
        recipe = replace(SHORT, epochs=4)
        left = torch.load(tmp_path / CHECKPOINT, weights_only=True)
        assert len(left["history"]) == 2
        resumed = distill(None, seeded(Noisy, 5), made(), recipe, out=tmp_path, resume=True)
        straight = distill(None, seeded(Noisy), made(), recipe)
        assert curve(resumed) == curve(straight)
        assert states_equal(resumed.student, straight.student)
        names = sorted(path.name for path in tmp_path.iterdir())
        assert names == sorted([CHECKPOINT, HISTORY, WEIGHTS, TRAINED])

    @pytest.mark.slow
    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
    def test_killed_at_any_moment(self, tmp_path: Path) -> None:
        """Also while a checkpoint is written: killed again and again, it comes to the same end."""
        recipe, master, few = replace(SHORT, epochs=60), teacher(), digits()

        def train() -> None:
            distill(master, seeded(Noisy), few, recipe, out=tmp_path, resume=True)

        wait, kills = random.Random(0), 0
        for _ in range(100):
            run = multiprocessing.get_context("fork").Process(target=train)
            run.start()
            run.join(0.2 + wait.random())
            if ended := run.exitcode is not None:
                break
            run.kill()
            run.join()
            kills += 1
        assert ended and run.exitcode == 0 and kills >= 2
        straight = distill(master, seeded(Noisy), few, recipe)
        rows = [json.loads(line) for line in (tmp_path / HISTORY).read_text().splitlines()]
        assert curve(replace(straight, history=tuple(rows))) == curve(straight)
        weights = load_file(tmp_path / WEIGHTS)
        assert all(torch.equal(weights[n], v) for n, v in straight.student.state_dict().items())

    def test_seconds_before_the_stop_count(self, tmp_path: Path) -> None:
        stop = at_step(11, interrupt)
        with pytest.raises(KeyboardInterrupt):
            distill(None, seeded(LinearHead), digits(), SHORT, out=tmp_path, on_step=stop)
        resumed = distill(None, seeded(LinearHead), digits(), SHORT, out=tmp_path, resume=True)
        first = json.loads((tmp_path / HISTORY).read_text().splitlines()[0])
        assert resumed.seconds > first["seconds"] == resumed.history[0]["seconds"] > 0

    def test_finished_is_not_read_or_trained_again(self, tmp_path: Path) -> None:
        first = distill(None, seeded(LinearHead), digits(), SHORT, out=tmp_path)
        calls: list[object] = []
        again = distill(
            None, seeded(LinearHead, 3), digits(), SHORT, out=tmp_path, resume=True,
            on_step=lambda *call: calls.append(call), on_read=lambda *call: calls.append(call),
        )  # fmt: skip
        assert not calls and again.history == first.history
        assert states_equal(first.student, again.student)

    def test_the_result_is_recorded_as_the_command_records_it(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        trained = distill(
            teacher(), seeded(LinearHead), digits(), SHORT, out=tmp_path / "a", progress=True,
            facts={"student": {"width": 8}},
        )  # fmt: skip
        alone = distill(None, seeded(LinearHead), digits(), SHORT, out=tmp_path / "b")
        unkept = distill(None, seeded(LinearHead), digits(), SHORT).record
        assert unkept == {**alone.record, "out": None, "seconds": unkept["seconds"]}
        shown = capsys.readouterr()
        assert shown.out == "" and len(re.findall("^training .*: epoch ", shown.err, re.M)) == 2

        run = diswot.load_run(tmp_path / "a")
        (taught,) = run.trainings
        assert taught.accuracy == trained.test_accuracy and run.history == trained.history
        assert run.facts["class_names"] == list(digits().classes)
        known = {"student": {"width": 8}, "teacher": "LinearHead", "epochs": 2, "data": "digits"}
        known |= {"start": {"from": "fresh"}, "losses": SHORT.weights, "out": str(tmp_path / "a")}
        assert known.items() <= taught.result.items() and trained.record == taught.result
        assert {"model_params", "macs", "seconds", "recipe", "mean"} <= taught.result.keys()
        first, second = diswot.compare_runs(tmp_path / "a", tmp_path / "b").runs
        assert (first.teacher, second.teacher) == ("LinearHead", None)
        assert [e.way for run in (first, second) for e in run.accuracies] == ["distilled", "alone"]
        with pytest.raises(UserError, match="unknown teacher 'LinearHead'"):
            run.teacher()

    def test_nothing_to_resume_starts(self, tmp_path: Path) -> None:
        made = distill(None, seeded(LinearHead), digits(), SHORT, out=tmp_path / "new", resume=True)
        assert len(made.history) == 2

    def test_used_folder(self, tmp_path: Path) -> None:
        distill(None, seeded(LinearHead), digits(), SHORT, out=tmp_path)
        before = {path: path.read_bytes() for path in tmp_path.iterdir()}
        with pytest.raises(UserError, match="holds a training already; resume it, or choose"):
            distill(None, seeded(LinearHead), digits(), SHORT, out=tmp_path)
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"recipe": replace(SHORT, epochs=3)}, "epochs = 2, not 3"),
            ({"recipe": replace(SHORT, lr=0.2)}, "lr = 0.1, not 0.2"),
            ({"recipe": replace(SHORT, losses={"kd": 2.0})}, "kd = 1.0, not 2.0"),
            ({"data": replace(digits(), name="cifar10")}, "data = 'digits', not 'cifar10'"),
            ({"data": digits(300)}, "training_images = 330, not 300"),
            ({"teacher": None}, "taught = True, not False"),
            ({"teacher": seeded(LinearHead, 1)}, "teacher_checksum = "),
            ({"student": seeded(FlattenedGrid)}, "has another student"),
        ],
    )
    def test_other_facts(self, tmp_path: Path, change: dict[str, Any], message: str) -> None:
        call = {"student": seeded(LinearHead), "teacher": teacher(), "data": digits()}
        distill(**call, recipe=SHORT, out=tmp_path)  # type: ignore[arg-type]
        before = {path: path.read_bytes() for path in tmp_path.iterdir()}
        with pytest.raises(UserError) as caught:
            distill(**{"recipe": SHORT, **call, **change}, out=tmp_path, resume=True)
        assert message in str(caught.value)
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before

    def test_numpy_settings(self, tmp_path: Path) -> None:
        recipe = replace(SHORT, seed=np.int64(3), lr=np.float64(0.1))  # type: ignore[arg-type]
        distill(None, seeded(LinearHead), digits(), recipe, out=tmp_path)
        plain = replace(SHORT, seed=3)
        assert distill(None, seeded(LinearHead), digits(), plain, out=tmp_path, resume=True)


class TestKept:
    def test_weights_load_into_a_fresh_network(self, tmp_path: Path) -> None:
        trained = distill(teacher(), seeded(LinearHead), digits(), SHORT, out=tmp_path)
        fresh = seeded(LinearHead, 3)
        fresh.load_state_dict(load_file(tmp_path / WEIGHTS))
        assert measure_result(fresh, digits()) == trained.test_accuracy

    def test_nothing_without_a_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        distill(None, seeded(LinearHead), digits(), SHORT)
        assert not list(tmp_path.iterdir())

    def test_folder_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(UserError, match=r"cannot write .*checkpoint.pt: "):
            distill(None, seeded(LinearHead), digits(), SHORT, out=tmp_path / "file" / "run")


class Diverging(LinearHead):
    """Gives no numbers from some training step on."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.left = step

    def forward(self, images: Tensor) -> Tensor:
        self.left -= self.training
        return super().forward(images) * (1 if self.left >= 0 else float("nan"))


class TestNotFinite:
    def test_epoch_is_named_and_the_last_good_checkpoint_kept(self, tmp_path: Path) -> None:
        student = seeded(lambda: Diverging(14))
        with pytest.raises(FloatingPointError) as caught:
            distill(None, student, digits(), SHORT, out=tmp_path)
        kept = f"the last good state is in {tmp_path}"
        message = f"cross_entropy not finite at step 15, in epoch 2; try a lower lr; {kept}"
        assert str(caught.value) == message
        state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
        assert len(state["history"]) == 1 and not (tmp_path / WEIGHTS).exists()
        assert all(torch.isfinite(value).all() for value in state["student"].values())

    def test_part_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def infinite(taught: Any, seen: Any) -> Tensor:
            return seen.logits.sum() * float("inf")

        row = replace(KNOWLEDGE["relation"], distance=infinite)
        monkeypatch.setitem(KNOWLEDGE, "relation", row)
        recipe = replace(SHORT, losses={"kd": 1.0, "relation": 1.0})
        with pytest.raises(FloatingPointError, match=r"^relation not finite at step 1, in epoch 1"):
            distill(teacher(), seeded(LinearHead), digits(), recipe)

    def test_weights_that_burst_in_the_last_step_are_not_kept(self, tmp_path: Path) -> None:
        student = seeded(LinearHead)
        student.fc.weight.register_hook(lambda gradient: gradient * float("inf"))
        recipe = replace(SHORT, epochs=1, batch_size=330)
        with pytest.raises(
            FloatingPointError, match=r"^fc.weight not finite at step 1, in epoch 1; try"
        ):
            distill(None, student, digits(), recipe, out=tmp_path)
        assert not (tmp_path / CHECKPOINT).exists()


class TestRefused:
    def test_noise(self) -> None:
        noise = create_dataset("noise", num_classes=CLASSES, img_size=8)
        with pytest.raises(UserError, match="noise has no images to train on"):
            distill(None, seeded(LinearHead), noise, SHORT)

    def test_too_few_images(self) -> None:
        for few in (digits(1), digits(330, 0)):
            with pytest.raises(UserError, match="digits has too few images"):
                distill(None, seeded(LinearHead), few, SHORT)

    def test_nothing_to_learn_from(self) -> None:
        mute = replace(SHORT, cross_entropy=0.0, losses={"kd": 0.0})
        for master, recipe in [(None, replace(mute, losses={"kd": 1.0})), (teacher(), mute)]:
            with pytest.raises(UserError, match="nothing to learn from: cross_entropy is 0"):
                distill(master, seeded(LinearHead), digits(), recipe)

    def test_no_weights_to_train(self) -> None:
        with pytest.raises(UserError, match="no weights to train"):
            distill(None, seeded(LinearHead).requires_grad_(False), digits(), SHORT)

    @pytest.mark.parametrize("role", ["student", "teacher"])
    def test_networks_that_do_not_fit(self, role: str) -> None:
        large = replace(digits(), classes=tuple("0123456"))
        both = {"student": seeded(LinearHead), "teacher": teacher()}
        both[role] = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 7))
        with pytest.raises(UserError, match=r"gives logits for 5 classes, and digits has 7"):
            distill(both["teacher"], both["student"], large, SHORT)
        both[role] = nn.Sequential(nn.Flatten(), nn.Linear(100, CLASSES))
        with pytest.raises(UserError, match=f"the {role} cannot take images of shape"):
            distill(both["teacher"], both["student"], digits(), SHORT)

    def test_auxiliary_outputs(self) -> None:
        class Auxiliary(Returning):
            def forward(self, images: Tensor) -> object:
                logits = LinearHead.forward(self, images)
                return (logits, logits) if self.training else logits

        for master in (None, teacher()):
            with pytest.raises(UserError, match="tuple"):
                distill(master, Auxiliary(lambda x: x), digits(), SHORT)

    def test_refused_before_images_are_read(self, tmp_path: Path) -> None:
        distill(None, seeded(LinearHead), digits(), SHORT, out=tmp_path)
        calls: list[object] = []
        with pytest.raises(UserError):
            distill(
                None, seeded(LinearHead), digits(), SHORT, out=tmp_path,
                on_read=lambda *call: calls.append(call),
            )  # fmt: skip
        assert not calls

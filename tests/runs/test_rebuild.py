"""Images and networks, built again from what a run folder records."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from run_folders import call, edited
from tiny_training import measure_result
from torch import nn

from diswot.cli.inputs import images_of
from diswot.data.registry import create_dataset
from diswot.errors import UserError
from diswot.models.initialization import TEACHER, fresh
from diswot.models.registry import create_teacher
from diswot.proxies.scorer import scorer
from diswot.runs.folder import search_config
from diswot.runs.rebuild import RecordedNetworks, recorded_student, student_builder
from diswot.spaces.registry import build_network, create_space
from diswot.utils.state_dicts import save_weights

PARAMS = {"blocks1": 1, "blocks2": 3, "blocks3": 1}
TRAIN = "--data digits --image-size 8 --epochs 1 --batch-size 256 --precision fp32 --quiet"


def same(one: nn.Module, other: nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(
        torch.equal(states[0][name], states[1][name]) for name in states[0]
    )


def test_students_by_parameters_and_by_name() -> None:
    count = sum(p.numel() for p in build_network(create_space("s0", 7, 8), PARAMS).parameters())
    built = student_builder(PARAMS, "s0", 7, 8)()

    assert sum(p.numel() for p in built.parameters()) == count
    assert student_builder("resnet20", "no space", 7, 8)()(torch.zeros(2, 3, 8, 8)).shape == (2, 7)
    with pytest.raises(UserError, match="parameter 'blocks3' is missing"):
        student_builder({"blocks1": 1, "blocks2": 1}, "s0", 7, 8)()


def test_images_are_normalised_as_recorded() -> None:
    config = {"data": "digits", "classes": 10, "image_size": 8}
    plain = create_dataset("digits", img_size=8)

    assert RecordedNetworks(config).images().mean == plain.mean
    other = RecordedNetworks({**config, "mean": [0.1] * 3, "std": [0.2] * 3}).images()
    assert (other.mean, other.std, other.size) == ((0.1,) * 3, (0.2,) * 3, 8)


def test_the_score_of_the_search_comes_again(folder: Path, tmp_path: Path) -> None:
    """Of both networks as they were scored; the search scores by params, so by relation here."""
    run = tmp_path / "run"
    call("search --teacher resnet20 --data digits --image-size 8 --batch-size 8 --proxy relation "
         "--trials 2 --quiet --out", run)  # fmt: skip
    found = json.loads((run / "found.json").read_text())["best"]
    networks = RecordedNetworks(search_config(run))
    images = networks.images()

    teacher, student = networks.as_scored(found["params"])
    assert not networks.scored_trained() and networks.init() == "gaussian"
    fixed = scorer(teacher, [networks.batch(images)], init="gaussian", trained_teacher=True)
    assert fixed.score([student], ["relation"]) == {"relation": [found["score"]]}


def test_a_trained_teacher_is_scored_with_its_weights(tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    kept = fresh(lambda: create_teacher("resnet20", 10, 8), "kaiming", 3, 0, TEACHER)
    save_weights(kept, weights)
    config = {"teacher": "resnet20", "teacher_weights": str(weights), "space": "s0", "seed": 0}
    config |= {"classes": 10, "image_size": 8, "trained_teacher": True, "proxy": "relation"}

    networks = RecordedNetworks(config)
    assert networks.scored_trained() and same(networks.as_scored(PARAMS)[0], kept)
    for proxy, used in (("default", False), ("default_inherited", True)):
        drawn = replace(networks, config={**config, "proxy": proxy, "init": "kaiming"})
        assert drawn.scored_trained() == used
    fresh_one = replace(networks, config={**config, "trained_teacher": False})
    assert not same(fresh_one.as_scored(PARAMS)[0], kept)
    library = replace(networks, config={**config, "pretrained": True})
    with pytest.raises(UserError, match="pretrained weights, which are not loaded again"):
        library.as_scored(PARAMS)


@pytest.mark.parametrize("proxy", ["agreement", "capacity"])
def test_a_student_is_shown_with_what_it_inherits(proxy: str, tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    kept = fresh(lambda: create_teacher("resnet20", 10, 8), "kaiming", 3, 0, TEACHER)
    save_weights(kept, weights)
    config = {"teacher": "resnet20", "teacher_weights": str(weights), "space": "s0", "seed": 0}
    config |= {"classes": 10, "image_size": 8, "trained_teacher": True, "proxy": proxy}
    networks = RecordedNetworks({**config, "init": "inherited"})

    teacher, student = networks.as_scored({"blocks1": 3, "blocks2": 3, "blocks3": 3})

    assert same(teacher, kept) and same(student, kept)


def test_the_student_of_a_training_is_the_one_that_was_tested(tmp_path: Path) -> None:
    """It is as accurate as the training says, by parameters and by name."""
    params = json.dumps(PARAMS)
    call(f"distill {TRAIN} --teacher none --out", tmp_path / "a", "--student", params)
    call(f"distill {TRAIN} --teacher none --out", tmp_path / "b", "--student", "resnet20")
    for place, named in (("a", PARAMS), ("b", "resnet20")):
        student = recorded_student(tmp_path / place)
        assert (student.student, student.found) == (named, False)
        assert student.training is not None
        accuracy = measure_result(student.network(), student.networks.images())
        assert accuracy == pytest.approx(student.training["test_accuracy"], abs=0.3)


def test_an_untrained_student_of_a_search(folder: Path) -> None:
    student = recorded_student(folder)

    assert student.training is None and student.found
    assert same(student.network(), student.network())
    best = json.loads((folder / "found.json").read_text())["best"]
    assert student.student == best["params"]


@pytest.mark.parametrize("wrong", [[3], 3, None])
def test_a_training_of_nothing_known(wrong: object, tmp_path: Path) -> None:
    known = {"classes": 10, "image_size": 8, "data": "digits", "student": wrong}
    known |= {"test_accuracy": 1.0, "train_accuracy": 1.0}
    (tmp_path / "trained.json").write_text(json.dumps({"result": known}))

    with pytest.raises(UserError, match="does not tell enough to build the network"):
        recorded_student(tmp_path)


def test_a_damaged_training(copy: Path) -> None:
    training = copy / "distilled"
    training.mkdir()
    save_weights(create_teacher("resnet20", 10, 8), training / "student.safetensors")
    with pytest.raises(UserError, match="cannot read"):
        recorded_student(copy)
    (training / "trained.json").write_text('{"result": {"student": {}}}')
    with pytest.raises(UserError, match="is not what diswot writes"):
        recorded_student(copy)
    best = json.loads((copy / "found.json").read_text())["best"]["params"]
    result = {"student": best, "test_accuracy": 1.0, "train_accuracy": 1.0}
    (training / "trained.json").write_text(json.dumps({"result": result}))
    kept = recorded_student(copy)
    assert kept.training == result
    with pytest.raises(UserError, match="does not fit the network"):
        kept.network()
    edited(copy / "found.json", lambda found: found["best"]["params"].update(blocks1=5))
    with pytest.raises(UserError, match="holds the training of another student"):
        recorded_student(copy)


def test_a_search_that_records_no_images() -> None:
    with pytest.raises(UserError, match="the run does not record its images"):
        RecordedNetworks({"classes": 10, "image_size": 8}).images()
    with pytest.raises(UserError, match="the run does not record its images"):
        images_of({"teacher": "resnet20"})

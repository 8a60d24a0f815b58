"""Backbones of any space under a decoder."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import optuna
import pytest
import torch
from optuna.trial import FixedTrial

import diswot
import diswot.observation.modes
from diswot.costs.counts import count_params
from diswot.errors import UserError
from diswot.models.backbones import StageMaps, split_at_plus
from diswot.observation.observe import observe
from diswot.spaces.dense import DECODERS

NAMES = [f"dense:{backbone}+{decoder}" for backbone in ("s0", "mobilenet") for decoder in DECODERS]


def params(name: str) -> dict[str, object]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    trial = study.ask()
    with torch.device("meta"):
        diswot.create_space(name, 5, 64)(trial)
    return dict(trial.params)


@pytest.mark.parametrize("name", NAMES)
def test_logits_have_the_size_of_the_images(name: str) -> None:
    space, chosen = diswot.create_space(name, 5, 64), params(name)
    model = diswot.build_network(space, chosen).eval()
    images = torch.randn(2, 3, 64, 96)
    assert model(images)["out"].shape == (2, 5, 64, 96)
    seen = observe(model, images, torch.randint(-1, 5, (2, 64, 96)))
    assert seen.logits.shape[1] == seen.class_gradient.shape[0] == 5
    assert seen.head_input.shape[1] == seen.class_gradient.shape[1]
    with torch.device("meta"):
        assert count_params(space(FixedTrial(chosen))) == count_params(model)


def test_the_maps_are_those_of_the_backbone() -> None:
    backbone, chosen = diswot.create_space("s0", 5, 64), {"blocks1": 1, "blocks2": 1, "blocks3": 1}
    network = diswot.build_network(backbone, chosen).eval()
    model = StageMaps(network, {"first": "layer1", "last": "layer3"}).eval()
    images = torch.randn(2, 3, 32, 32)
    labels = torch.zeros(2, dtype=torch.int64)
    stages = observe(network, images, labels).stages
    network.train(False)
    with torch.no_grad(), diswot.observation.modes.measuring(model):
        maps = model(images)
    assert list(maps) == ["first", "last"]
    assert torch.equal(maps["first"], stages[0])
    assert torch.equal(maps["last"], stages[-1])


def test_no_weight_of_the_classifier_is_left() -> None:
    chosen = {"blocks1": 1, "blocks2": 1, "blocks3": 1}
    network = diswot.build_network(diswot.create_space("s0", 5, 64), chosen)
    dense = diswot.build_network(
        diswot.create_space("dense:s0+lraspp", 5, 64), {**chosen, "decoder_width": 32}
    )
    names = {name.removeprefix("backbone.network.") for name, _ in dense.named_parameters()}
    assert "linear.weight" in dict(network.named_parameters()) or "fc.weight" in dict(
        network.named_parameters()
    )
    assert not {"linear.weight", "fc.weight"} & names


def test_a_copy_reads_its_own_maps() -> None:
    """Hooks of a copy must not fill the maps of the first network."""
    name = "dense:s0+fpn"
    model = diswot.build_network(diswot.create_space(name, 5, 64), params(name)).eval()
    second = copy.deepcopy(model)
    with torch.no_grad():
        for weight in second.parameters():
            weight.mul_(2)
    images = torch.randn(2, 3, 64, 64)
    expected = model(images)["out"]
    assert not torch.equal(second(images)["out"], expected)
    assert torch.equal(model(images)["out"], expected)


def test_an_own_backbone_is_checked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.py").write_text(
        "from diswot.spaces.cifar_resnet import build\n\n\n"
        "def space(trial, num_classes):\n    return build(trial, num_classes)\n"
    )
    checked: list[object] = []
    monkeypatch.setattr("diswot.spaces.registry.check", checked.append)
    for name in ("dense:{}:space+lraspp", "detector:{}:space+fcos"):
        checked.clear()
        space = diswot.create_space(name.format(tmp_path / "own.py"), 5, 64)
        with torch.device("meta"):
            for _ in range(2):
                space(optuna.create_study(sampler=optuna.samplers.RandomSampler(0)).ask())
        assert len(checked) == 1
        assert pickle.loads(pickle.dumps(space)).facts == space.facts


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dense", "dense needs a parts, such as dense:mobilenet"),
        ("dense:mobilenet", "has no plus; such as dense:mobilenet"),
        ("dense:mobilenet+unet", "unknown decoder 'unet'"),
        ("dense:nothing+fpn", "unknown space 'nothing'"),
    ],
)
def test_wrong_names(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        diswot.create_space(name)


def test_the_decoder_is_what_follows_the_last_plus() -> None:
    assert split_at_plus("a+b.py:f+fpn", "dense:a+b") == ("a+b.py:f", "fpn")

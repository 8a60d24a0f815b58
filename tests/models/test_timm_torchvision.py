"""Networks of timm and torchvision; nothing is fetched: their loaders are put to the test."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
from torch import nn
from torchvision import models

from diswot.errors import UserError
from diswot.models.preprocessing import InputConfig
from diswot.models.registry import create_teacher, input_config

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def logits(model: nn.Module, pixels: int) -> tuple[int, ...]:
    return tuple(model.eval()(torch.zeros(2, 3, pixels, pixels)).shape)


@pytest.mark.parametrize(
    ("name", "fresh", "trained"),
    [
        ("timm:resnet50", InputConfig(), InputConfig(1000, 224, *IMAGENET)),
        (
            "timm:deit_tiny_patch16_224",
            InputConfig(img_size=224),
            InputConfig(1000, 224, *IMAGENET),
        ),
        (
            "timm:vit_tiny_patch16_224",
            InputConfig(img_size=224),
            InputConfig(1000, 224, (0.5,) * 3, (0.5,) * 3),
        ),
        ("torchvision:resnet34", InputConfig(), InputConfig(1000, 224, *IMAGENET)),
        ("torchvision:vit_h_14", InputConfig(img_size=224), InputConfig(1000, 518, *IMAGENET)),
        ("torchvision:googlenet", InputConfig(), InputConfig(1000, 224, (0.5,) * 3, (0.5,) * 3)),
        ("torchvision:inception_v3", InputConfig(), InputConfig(1000, 299, (0.5,) * 3, (0.5,) * 3)),
        ("torchvision:fcn_resnet50", InputConfig(), InputConfig(21, None, *IMAGENET)),
        ("resnet56", InputConfig(), None),
        ("nets.py:net", InputConfig(), None),
    ],
)
def test_input_config(name: str, fresh: InputConfig, trained: InputConfig | None) -> None:
    assert input_config(name) == fresh
    if trained is not None:
        assert replace(input_config(name, True), classes=None) == trained
        return
    with pytest.raises(UserError, match=f"no pretrained weights to fetch for {name}, only for"):
        input_config(name, True)


def test_the_classes_of_trained_weights_have_names() -> None:
    """The first class of ImageNet is a fish, number n01440764 in WordNet."""
    named = [input_config(name, True).classes for name in ("timm:resnet50", "torchvision:resnet34")]
    assert [None if each is None else (len(each), each[0]) for each in named] == [
        (1000, ("n01440764", "tench", "Tinca tinca")),
        (1000, ("tench",)),
    ]


@pytest.mark.parametrize(
    ("name", "pixels"),
    [("timm:resnet10t", 40), ("timm:deit_tiny_patch16_224", 32), ("torchvision:resnet18", 40)],
)
def test_a_fresh_head_for_the_data(name: str, pixels: int) -> None:
    assert logits(create_teacher(name, 7, pixels), pixels) == (2, 7)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:resnet5", "unknown network of timm 'resnet5'; did you mean resnet50"),
        ("timm:zzzzzzzzzzzzzz", "unknown network of timm 'zzzzzzzzzzzzzz'; known: .* more$"),
        ("timm:hf-hub:timm/resnet18.a1_in1k", "unknown network of timm 'hf-hub:timm/resnet18"),
        ("timm:local-dir:nets", "unknown network of timm 'local-dir:nets'"),
        ("timm:resnet18.none", "timm:resnet18.none cannot be made: .*Invalid pretrained tag"),
        (
            "torchvision:resnet33",
            "unknown network of torchvision .*; did you mean resnet34",
        ),
        ("torchvision:raft_small", "unknown network of torchvision"),
        ("tim:resnet50", r"unknown teacher 'tim:resnet50'; did you mean timm:resnet50"),
        ("timm:", r"unknown teacher 'timm:'; did you mean timm:resnet50"),
    ],
)
def test_unknown(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        create_teacher(name)
    assert len(str(caught.value)) < 400


def test_no_weights_in_timm() -> None:
    trained = {name.partition(".")[0] for name in timm.list_models(pretrained=True)}
    name = next(name for name in timm.list_models() if name not in trained)
    with pytest.raises(UserError, match=f"timm:{name} has no pretrained weights in timm"):
        input_config(f"timm:{name}", True)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_offline_is_one_line(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("cannot reach the host. Try again\nlater")

    monkeypatch.setattr("timm.models._builder.load_pretrained", offline)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(UserError) as caught:
        create_teacher(f"{library}:resnet18", 1000, pretrained=True)
    text = str(caught.value)
    assert text.startswith(f"{library}:resnet18 has no pretrained weights here, and they cannot")
    assert text.endswith(": OSError: cannot reach the host") and "\n" not in text


@pytest.mark.parametrize("classes", [1000, 7])
def test_torchvision_takes_what_fits(classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real loading, of a state dict that stands for the file."""
    trained = models.resnet18()
    with torch.no_grad():
        for value in trained.parameters():
            value.fill_(0.25)
    fetched: list[str] = []

    def fetch(url: str, *_: object, **__: object) -> dict[str, Any]:
        fetched.append(url)
        return trained.state_dict()

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    model = create_teacher("torchvision:resnet18", classes, pretrained=True)
    assert fetched and "resnet18" in fetched[0]
    state = model.state_dict()
    assert all(torch.equal(state[k], v) for k, v in trained.state_dict().items() if "fc" not in k)
    assert state["fc.weight"].shape == (classes, 512)
    assert bool((state["fc.weight"] == 0.25).all()) == (classes == 1000)


@pytest.mark.parametrize("classes", [1000, 7])
def test_timm_loads_its_weights(classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = timm.create_model("resnet10t")
    with torch.no_grad():
        for value in trained.parameters():
            value.fill_(0.25)
    states = [trained.state_dict()]
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_, **__: states[0])
    monkeypatch.setattr(
        "timm.models._builder.load_state_dict_from_url", lambda *_, **__: dict(states[0])
    )
    model = create_teacher("timm:resnet10t", classes, pretrained=True)
    assert bool((model.get_parameter("layer1.0.conv1.weight") == 0.25).all())
    head = model.get_parameter("fc.weight")
    assert head.shape[0] == classes and bool((head == 0.25).all()) == (classes == 1000)


def test_networks_for_segmentation_start_from_nothing() -> None:
    model = create_teacher("torchvision:lraspp_mobilenet_v3_large", 5, 32)
    assert model.eval()(torch.zeros(2, 3, 32, 48))["out"].shape == (2, 5, 32, 48)


DETECTORS = [
    "ssdlite320_mobilenet_v3_large",
    "fcos_resnet50_fpn",
    "fasterrcnn_mobilenet_v3_large_fpn",
]
BOXES = {"boxes": torch.tensor([[4.0, 6.0, 40.0, 50.0]]), "labels": torch.tensor([3])}


@pytest.mark.parametrize("name", DETECTORS)
def test_detectors_see_the_images_as_they_are(name: str) -> None:
    """K + 1 outputs, and the backbone gets the images unchanged but for padding."""
    model = create_teacher(f"torchvision:{name}", 3, 64)
    seen: list[torch.Tensor] = []
    model.get_submodule("backbone").register_forward_pre_hook(
        lambda _, given: seen.append(given[0])
    )
    images = torch.randn(2, 3, 64, 100)
    losses = model(list(images), [BOXES, BOXES])
    assert all(loss.isfinite() for loss in losses.values())
    found = model.eval()(images)
    assert [set(each) for each in found] == [{"boxes", "labels", "scores"}] * 2
    assert all(torch.equal(each[..., :100], images) for each in seen)
    assert {each.shape[3] for each in seen} == {100 if name.startswith("ssd") else 128}
    whole = models.get_model(name, num_classes=4, weights_backbone=None)
    assert {n: v.shape for n, v in model.state_dict().items()} == {
        n: v.shape for n, v in whole.state_dict().items()
    }


def test_input_config_of_a_trained_detector() -> None:
    """The first of the 91 categories of torchvision is the background."""
    found = input_config("torchvision:ssdlite320_mobilenet_v3_large", True)
    assert replace(found, classes=None) == InputConfig(90, None, (0.5,) * 3, (0.5,) * 3)
    assert found.classes is not None and found.classes[0] == ("person",)


@pytest.mark.parametrize("classes", [90, 7])
@pytest.mark.parametrize("name", [DETECTORS[0], DETECTORS[2]])
def test_a_detector_takes_what_fits(
    name: str, classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = models.get_model(name, weights_backbone=None)
    for value in trained.parameters():
        nn.init.constant_(value, 0.25)
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url", lambda *_, **__: trained.state_dict()
    )
    model = create_teacher(f"torchvision:{name}", classes, pretrained=True)
    state = model.state_dict()
    kept = {k for k, v in trained.state_dict().items() if state[k].shape == v.shape}
    assert all((state[k] == 0.25).all() for k, _ in model.named_parameters() if k in kept)
    heads = {k for k in state if k not in kept}
    assert bool(heads) == (classes == 7) and all("cl" in k or "predictor" in k for k in heads)


def test_detectors_of_masks_are_refused() -> None:
    with pytest.raises(UserError, match="unknown network of torchvision 'maskrcnn_resnet50_fpn'"):
        create_teacher("torchvision:maskrcnn_resnet50_fpn")

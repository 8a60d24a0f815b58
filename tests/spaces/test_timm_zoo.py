from __future__ import annotations

import re

import pytest
import timm
import torch
from commands import Run

from diswot.errors import UserError
from diswot.spaces import timm_zoo
from diswot.spaces.registry import SPACES, build_network, create_space


def test_names_of_a_pattern() -> None:
    names = timm_zoo.names("mobilenetv3_small*, resnet1[08]")

    assert {"mobilenetv3_small_050", "resnet18"} <= set(names)
    assert "resnet34" not in names and "mobilenetv3_large_100" not in names
    assert all(re.match(r"mobilenetv3_small|resnet1[08]", name) for name in names)
    assert list(names) == [name for name in timm.list_models() if name in names]


def test_test_models_are_left_out_unless_named() -> None:
    assert not [name for name in timm_zoo.names() if name.startswith("test_")]
    assert not [name for name in timm_zoo.names("*resnet*") if name.startswith("test_")]
    assert timm_zoo.names("test_resnet") == ("test_resnet",)
    assert SPACES["timm_zoo"].size == len(timm_zoo.names("*"))


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("resnet18z", "timm has no model 'resnet18z'; did you mean .*resnet18"),
        ("resnet18,", "timm has no model ''"),
        ("", "timm has no model ''; timm.list_models"),
    ],
)
def test_nothing_matches(pattern: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        create_space(f"timm_zoo:{pattern}")
    assert len(str(error.value)) < 300


def test_other_spaces_take_no_pattern() -> None:
    with pytest.raises(UserError, match="s0 is no list of networks"):
        create_space("s0:resnet*")


def test_models_are_timms() -> None:
    build = create_space("timm_zoo:test_*", num_classes=5, img_size=48)
    for name in ("test_resnet", "test_vit"):
        ours = build_network(build, {"model": name}).state_dict()
        size = {"img_size": 48} if name == "test_vit" else {}
        theirs = timm.create_model(name, num_classes=5, **size).state_dict()
        assert {n: v.shape for n, v in ours.items()} == {n: v.shape for n, v in theirs.items()}


def test_model_outside_the_pattern() -> None:
    with pytest.raises(UserError, match="model = 'resnet18' is not among its choices"):
        build_network(create_space("timm_zoo:test_*"), {"model": "resnet18"})


def test_size_that_a_model_cannot_take() -> None:
    build = create_space("timm_zoo:test_vit*", img_size=8)
    with pytest.raises(
        UserError, match="test_vit_relpos is for images of 160 pixels, not 8: "
    ) as error:
        build_network(build, {"model": "test_vit_relpos"})
    assert "\n" not in str(error.value)


def test_model_too_large_is_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    build = create_space("timm_zoo:vit_7b*,test_*")
    with pytest.raises(UserError, match=r"vit_7b_\w+ has 67\d\d M parameters, above the 200 M"):
        build_network(build, {"model": timm_zoo.names("vit_7b*")[0]})
    assert next(build_network(build, {"model": "test_vit"}).parameters()).device.type == "cpu"
    with torch.device("meta"):
        build_network(build, {"model": "test_vit"})


def test_models_that_cannot_take_the_images_fail_with_the_reason(run: Run) -> None:
    models = "timm_zoo:test_convnext,test_convnext2,test_resnet"
    sizes = "--classes 5 --image-size 16 --batch-size 4"
    line = f"search --data noise --teacher resnet20 --space {models} {sizes} --proxy relation"
    ran = run(f"{line} --quiet --json")

    assert ran.json["best"]["params"] == {"model": "test_resnet"}
    assert ran.json["failed"] == 2
    assert all("Kernel size" in reason for reason in ran.json["failures"])


def test_search_by_command(run: Run) -> None:
    ran = run(
        "search --teacher resnet20 --space timm_zoo:test_*net* --data noise --classes 5 "
        "--image-size 32 --max-params 0.3M --batch-size 8 --json --quiet"
    )

    assert ran.status == 0, ran.err
    assert ran.json["exhaustive"] and ran.json["rejected"] > 0 < ran.json["scored"]
    assert ran.json["best"]["params"]["model"].startswith("test_")
    assert ran.json["best"]["model_params"] <= 300_000

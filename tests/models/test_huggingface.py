"""Classifiers of transformers, from local folders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from diswot import observe
from diswot.errors import UserError
from diswot.models.preprocessing import InputConfig
from diswot.models.registry import create_teacher, input_config

transformers = pytest.importorskip("transformers", reason="needs the extra hf")

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
MEAN, STD = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained transformer of 7 classes and 32 pixels, a ResNet, and a network with no head."""
    root = tmp_path_factory.mktemp("hf")
    config = transformers.ViTConfig(
        **SMALL, intermediate_size=16, image_size=32, patch_size=8, num_labels=7
    )
    transformers.ViTForImageClassification(config).save_pretrained(root / "vit")
    processor = transformers.ViTImageProcessor(
        size={"height": 32, "width": 32}, image_mean=list(MEAN), image_std=list(STD)
    )
    processor.save_pretrained(root / "vit")
    transformers.ViTModel(config).save_pretrained(root / "headless")
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=7
    )
    transformers.ResNetForImageClassification(config).save_pretrained(root / "resnet")
    return root


def test_input_config(folder: Path) -> None:
    assert input_config(f"hf:{folder}/vit") == InputConfig(img_size=32)
    assert input_config(f"hf:{folder}/vit", True) == InputConfig(7, 32, MEAN, STD)
    assert input_config(f"hf:{folder}/resnet", True) == InputConfig(7)


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_pretrained_gives_the_logits_of_transformers(folder: Path, name: str) -> None:
    own = transformers.AutoModelForImageClassification.from_pretrained(folder / name).eval()
    model = create_teacher(f"hf:{folder}/{name}", 7, 32, pretrained=True).eval()
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(model(images), own(pixel_values=images).logits)


@pytest.mark.parametrize(("name", "width"), [("vit", 16), ("resnet", 16)])
def test_observed(folder: Path, name: str, width: int) -> None:
    model = create_teacher(f"hf:{folder}/{name}", 7)
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 6])
    seen = observe(model, images, labels, cam=True)
    assert seen.logits.shape == (4, 7) and seen.class_gradient.shape == (7, width)
    assert seen.last.shape[:2] == (4, width) and seen.cam_weights is not None


@pytest.mark.parametrize("pretrained", [False, True])
def test_another_number_of_classes(folder: Path, pretrained: bool) -> None:
    model = create_teacher(f"hf:{folder}/vit", 3, 32, pretrained=pretrained).eval()
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 3)


def test_another_size(folder: Path) -> None:
    model = create_teacher(f"hf:{folder}/vit", 3, 48).eval()
    assert model(torch.zeros(2, 3, 48, 48)).shape == (2, 3)


def test_no_classifier(folder: Path) -> None:
    with pytest.raises(UserError, match=r"headless are not a classifier's: they lack .*classifier"):
        trained = input_config(f"hf:{folder}/headless", True).num_classes
        create_teacher(f"hf:{folder}/headless", trained or 2, pretrained=True)


@pytest.mark.parametrize("name", ["./nothing", "/nothing/at/all"])
def test_no_such_folder(name: str) -> None:
    with pytest.raises(UserError, match=f"no such folder: {name}"):
        input_config(f"hf:{name}")


def test_pickled_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    config = folder / "resnet" / "config.json"
    (tmp_path / "config.json").write_text(config.read_text())
    torch.save({"a": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="has no pretrained weights here"):
        create_teacher(f"hf:{tmp_path}", 7, pretrained=True)

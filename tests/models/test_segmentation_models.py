"""Networks of segmentation-models-pytorch and of transformers, observed as they are."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from diswot.data.dataset import Batch
from diswot.errors import UserError
from diswot.models.registry import create_teacher
from diswot.observation.observe import observe
from diswot.proxies.scorer import score
from diswot.spaces.registry import build_network, create_space

CLASSES = 3
LAST = {"unet": 16, "fpn": 128, "deeplabv3plus": 256, "segformer": 256}


def batch(pixels: tuple[int, int] = (64, 96)) -> Batch:
    random = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, *pixels, generator=random)
    return Batch(images, torch.randint(CLASSES, (2, *pixels), generator=random))


def gradient_by_autograd(model: nn.Module, given: Batch, head: str) -> Tensor:
    """Return the gradient of the mean cross-entropy in the weight of the head, K x D."""
    weight = model.get_submodule(head).weight
    logits = model.train()(given.images)
    logits = logits if isinstance(logits, Tensor) else logits.logits
    logits = nn.functional.interpolate(logits, given.labels.shape[1:], mode="bilinear")
    loss = nn.functional.cross_entropy(logits, given.labels)
    (gradient,) = torch.autograd.grad(loss, weight)
    return gradient.flatten(1)


@pytest.fixture
def smp() -> None:
    pytest.importorskip("segmentation_models_pytorch", reason="needs the extra segmentation")


@pytest.mark.usefixtures("smp")
@pytest.mark.parametrize("decoder", LAST)
def test_a_decoder_on_an_encoder_of_timm_is_observed(
    decoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stages are the encoder's, the last map enters the head, and the gradient is autograd's."""
    monkeypatch.setattr("diswot.observation.rows.MOST_ROWS", 10**6)
    model = create_teacher(f"smp:{decoder}-tu-mobilenetv3_small_050", CLASSES, 64)
    for module in model.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = 0.0
    given = batch()
    seen = observe(model, *given)
    strides = [64 // stage.shape[2] for stage in seen.stages]

    assert strides[:-1] == ([2, 4, 8, 16] if decoder == "deeplabv3plus" else [2, 4, 8, 16, 32])
    assert seen.last.shape[1] == LAST[decoder]
    expected = gradient_by_autograd(model, given, "segmentation_head.0")
    assert torch.allclose(seen.class_gradient, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.usefixtures("smp")
@pytest.mark.parametrize("decoder", LAST)
def test_a_decoder_is_scored(decoder: str) -> None:
    teacher, student = (
        create_teacher(f"smp:{decoder}-{encoder}", CLASSES, 64)
        for encoder in ("resnet18", "tu-mobilenetv3_small_050")
    )
    names = ["default", "diswot", "relation", "kd", "cwd", "macs", "stage_entropy"]
    found = score(teacher, student, batch(), names)

    assert all(map(math.isfinite, found.values())) and found.keys() == set(names)


@pytest.mark.usefixtures("smp")
@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("smp:unett-resnet18", "unknown decoder of smp 'unett'.*unet"),
        ("smp:unet-resnet19", "unknown encoder of smp 'resnet19'.*resnet18"),
        ("smp:unet-tu-nothing", "smp:unet-tu-nothing cannot be made: .*nothing"),
        ("smp:fpn-resnet18", "multiples of 32, not 60 pixels high; see --image-size"),
    ],
)
def test_what_cannot_be_built(name: str, part: str) -> None:
    with pytest.raises(UserError, match=part):
        create_teacher(name, CLASSES, 60)


@pytest.mark.usefixtures("smp")
def test_no_pretrained_networks() -> None:
    with pytest.raises(UserError, match="weights for its encoder alone; give --teacher-weights"):
        create_teacher("smp:unet-resnet18", CLASSES, 64, pretrained=True)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(UserError, match=r"pip install 'diswot\[segmentation\]'"):
        create_teacher("smp:unet-resnet18")


@pytest.mark.usefixtures("smp")
def test_space_of_a_pattern() -> None:
    space = create_space("smp_zoo:fpn-resnet18, linknet-tu-mobilenetv3_small_0*", CLASSES, 64)
    model = build_network(space, {"model": "linknet-tu-mobilenetv3_small_050"})

    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, CLASSES, 64, 64)
    with pytest.raises(UserError, match="linknet-resnet18"):
        build_network(space, {"model": "linknet-resnet18"})
    with pytest.raises(UserError, match="smp has no network 'fpn-nothing'"):
        create_space("smp_zoo:fpn-nothing", CLASSES)


def tiny(transformers: object, kind: str) -> nn.Module:
    """Build a network of transformers from a configuration, without weights."""
    t = transformers
    resnet = {"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
    stages = [f"stage{number}" for number in (1, 2, 3, 4)]
    configs = {
        "segformer": lambda: t.SegformerConfig(
            num_labels=CLASSES,
            hidden_sizes=[8, 16, 24, 32],
            depths=[1, 1, 1, 1],
            num_attention_heads=[1, 2, 3, 4],
            decoder_hidden_size=16,
            classifier_dropout_prob=0.0,
            drop_path_rate=0.0,
        ),
        "upernet": lambda: t.UperNetConfig(
            num_labels=CLASSES,
            backbone_config=t.ResNetConfig(**resnet, out_features=stages),
            hidden_size=16,
            auxiliary_in_channels=24,
        ),
    }
    return t.AutoModelForSemanticSegmentation.from_config(configs[kind]())


@pytest.mark.parametrize(
    ("kind", "head", "widths"),
    [
        ("segformer", "decode_head.classifier", [8, 16, 24, 32, 16]),
        ("upernet", "decode_head.classifier", [8, 8, 16, 24, 32, 16]),
    ],
)
def test_a_network_of_transformers_is_observed_and_scored(
    kind: str, head: str, widths: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    transformers = pytest.importorskip("transformers", reason="needs the extra hf")
    monkeypatch.setattr("diswot.observation.rows.MOST_ROWS", 10**6)
    model, given = tiny(transformers, kind), batch()
    seen = observe(model, *given)

    assert [stage.shape[1] for stage in seen.stages] == widths
    expected = gradient_by_autograd(model, given, head)
    assert torch.allclose(seen.class_gradient, expected, rtol=1e-3, atol=1e-5)
    found = score(model, tiny(transformers, kind), given, ["default", "diswot", "kd", "macs"])
    assert all(map(math.isfinite, found.values()))


def test_a_folder_of_a_segmenter_is_a_teacher(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="needs the extra hf")
    tiny(transformers, "segformer").save_pretrained(tmp_path / "tiny")
    own = transformers.AutoModelForSemanticSegmentation.from_pretrained(tmp_path / "tiny").eval()
    model = create_teacher(f"hf:{tmp_path}/tiny", CLASSES, pretrained=True).eval()
    images = batch().images
    with torch.no_grad():
        assert torch.equal(model(images), own(pixel_values=images).logits)

"""Detectors of transformers, by the convention of torchvision's; from local folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diswot.costs.counts import count
from diswot.models.preprocessing import InputConfig
from diswot.models.registry import create_teacher, input_config

transformers = pytest.importorskip("transformers", reason="needs the extra hf")

PARTS = ("encoder", "decoder")
SMALL = {
    "d_model": 32, "num_queries": 9, "num_labels": 5,
    **{f"{part}_layers": 1 for part in PARTS},
    **{f"{part}_attention_heads": 2 for part in PARTS},
    **{f"{part}_ffn_dim": 16 for part in PARTS},
}  # fmt: skip
BODY = {"embedding_size": 8, "hidden_sizes": [8, 16, 16, 16], "depths": [1] * 4}
BOXES = torch.tensor([[8.0, 16.0, 40.0, 48.0]])


def detr(**more: Any) -> Any:
    body = transformers.ResNetConfig(**BODY, layer_type="basic", out_features=["stage4"])
    return transformers.DetrConfig(**SMALL, backbone_config=body, **more)


def rt_detr() -> Any:
    kinds = [f"stage{place}" for place in (2, 3, 4)]
    body = transformers.RTDetrResNetConfig(**BODY, layer_type="basic", out_features=kinds)
    widths = {"encoder_in_channels": [16] * 3, "decoder_in_channels": [32] * 3}
    return transformers.RTDetrConfig(
        **SMALL, **widths, encoder_hidden_dim=32, num_denoising=0, backbone_config=body
    )


def yolos() -> Any:
    return transformers.YolosConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        image_size=[64, 96], num_detection_tokens=9, num_labels=5,
    )  # fmt: skip


def built(make: Callable[[], Any], tmp_path: Path) -> nn.Module:
    make().save_pretrained(tmp_path)
    return create_teacher(f"hf:{tmp_path}", 3, 64)


@pytest.mark.parametrize("make", [detr, lambda: detr(auxiliary_loss=True), rt_detr, yolos])
def test_the_losses_add_up_to_that_of_transformers(make: Callable[[], Any], tmp_path: Path) -> None:
    """In evaluation mode inside, as nothing is dropped there; boxes are shares of 64 x 96."""
    model = built(make, tmp_path)
    model.get_submodule("model").eval()
    images = torch.randn(2, 3, 64, 96)
    own = torch.tensor([[0.25, 0.5, 1 / 3, 0.5]])
    labels = [{"class_labels": torch.tensor([2]), "boxes": own}] * 2
    expected = model.get_submodule("model")(pixel_values=images, labels=labels).loss
    losses = model(list(images), [{"boxes": BOXES, "labels": torch.tensor([3])}] * 2)
    assert torch.isclose(sum(losses.values()), expected)


class Fixed(nn.Module):
    """A network of transformers whose outputs are given."""

    def __init__(self, logits: Tensor, boxes: Tensor) -> None:
        super().__init__()
        self.config = transformers.DetrConfig(num_labels=2)
        self.logits, self.boxes = logits, boxes

    def forward(self, pixel_values: Tensor) -> Any:
        return transformers.utils.ModelOutput(logits=self.logits, pred_boxes=self.boxes)


@pytest.mark.parametrize("nothing", [True, False])
def test_boxes_by_hand(nothing: bool) -> None:
    """Two queries and two classes; softmax with a third logit for no object, else sigmoid."""
    from diswot.models.huggingface_detector import HuggingFaceDetector

    shares = torch.tensor([[[0.3, 0.6, 0.1], [0.05, 0.15, 0.8]]])
    logits = shares.log() if nothing else torch.logit(shares[..., :2])
    boxes = torch.tensor([[[0.5, 0.5, 0.5, 0.25], [0.25, 0.25, 0.25, 0.25]]])
    model = HuggingFaceDetector(Fixed(logits, boxes)).eval()
    (found,) = model(torch.zeros(1, 3, 40, 80))
    assert torch.allclose(found["scores"], torch.tensor([0.6, 0.3, 0.15, 0.05]))
    assert found["labels"].tolist() == [2, 1, 2, 1]
    first, second = [20.0, 15.0, 60.0, 25.0], [10.0, 5.0, 30.0, 15.0]
    assert found["boxes"].tolist() == [first, first, second, second]


def test_weights_and_counts(tmp_path: Path) -> None:
    transformers.DetrForObjectDetection(detr()).save_pretrained(tmp_path)
    own = transformers.AutoModelForObjectDetection.from_pretrained(tmp_path).state_dict()
    assert input_config(f"hf:{tmp_path}", True) == InputConfig(5)
    model = create_teacher(f"hf:{tmp_path}", 5, pretrained=True)
    state = model.get_submodule("model").state_dict()
    assert all(torch.equal(value, own[name]) for name, value in state.items())
    counts = count(model, (3, 64, 64))
    assert counts.all_macs() > 0

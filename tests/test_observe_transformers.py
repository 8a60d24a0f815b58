"""Detectors of transformers as teachers: their maps are compared, their anchors are not shown."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectors import batch, fcos
from torch import nn

from diswot.data.dataset import Batch
from diswot.errors import UserError
from diswot.knowledge.registry import KNOWLEDGE
from diswot.observation.observe import observe
from diswot.proxies.scorer import score

transformers = pytest.importorskip("transformers", reason="needs the extra hf")

BODY = {"embedding_size": 8, "hidden_sizes": [8, 16, 16, 16], "depths": [1] * 4}
SMALL = {
    "d_model": 32, "num_queries": 9, "num_labels": 3,
    **{f"{part}_{key}": n for part in ("encoder", "decoder")
       for key, n in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 16))},
}  # fmt: skip


def detr() -> Any:
    body = transformers.ResNetConfig(**BODY, layer_type="basic", out_features=["stage4"])
    return transformers.DetrConfig(**SMALL, backbone_config=body)


def rt_detr() -> Any:
    kinds = [f"stage{place}" for place in (2, 3, 4)]
    body = transformers.RTDetrResNetConfig(**BODY, layer_type="basic", out_features=kinds)
    widths = {"encoder_in_channels": [16] * 3, "decoder_in_channels": [32] * 3}
    return transformers.RTDetrConfig(
        **SMALL, **widths, encoder_hidden_dim=32, num_denoising=0, backbone_config=body
    )


@pytest.mark.parametrize("make", [detr, rt_detr])
def test_a_detector_of_transformers_is_a_teacher_of_maps(make: Any) -> None:
    from diswot.models.huggingface_detector import HuggingFaceDetector

    torch.manual_seed(0)
    auto = transformers.AutoModelForObjectDetection
    teacher: nn.Module = HuggingFaceDetector(auto.from_config(make())).eval()
    student, images = fcos(), Batch(*batch())
    seen, other = observe(teacher, *images), observe(student, *images)
    assert seen.strides == (2, 4, 8, 16, 32) and seen.last.shape[1:] == (16, 2, 3)
    assert (seen.losses is not None and "loss_ce" in seen.losses) or "loss_vfl" in seen.losses
    for name in ("pkd", "cwd", "mgd", "at", "sp", "relation"):
        assert float(KNOWLEDGE[name].between(seen, other)) > 0
    with pytest.raises(UserError, match="the teacher does not show them"):
        KNOWLEDGE["kd"].between(seen, other)
    found = score(teacher, student, images, ("default", "relation", "params"))
    assert found.keys() == {"default", "relation", "params"}

"""Export of networks that give logits for each position."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import diswot
from diswot.exporters.export import export
from diswot.exporters.formats import FORMATS
from diswot.exporters.model_card import StudentDescription

PARAMS = {"blocks1": 1, "blocks2": 1, "blocks3": 1, "decoder_width": 32}


def description() -> StudentDescription:
    return StudentDescription(
        name="shapes",
        image_shape=(3, 24, 32),
        classes=("ground", "disc", "square"),
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        params=PARAMS,
        facts={},
        training=None,
    )


@pytest.mark.parametrize("kind", FORMATS)
def test_the_files_compute_the_logits(kind: str, tmp_path: Path) -> None:
    model = diswot.build_network(diswot.create_space("dense:s0+lraspp", 3, 24), PARAMS)
    written = export(model, tmp_path, kind, description())
    assert "Checked after writing" in written[-1].read_text()


def test_the_card_names_the_mean_iou() -> None:
    result = {"test_miou": 41.239, "train_accuracy": 80.0, "epochs": 1}
    card = replace(description(), training=result).card("onnx", "", [], "")
    assert "| test mIoU, % | `41.24` |" in card and "test accuracy" not in card


def test_images_of_an_onnx_file_may_have_any_size(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = diswot.build_network(diswot.create_space("dense:s0+fpn", 3, 24), PARAMS).eval()
    export(model, tmp_path, "onnx", description())
    session = onnxruntime.InferenceSession(str(tmp_path / "student.onnx"))
    images = torch.randn(1, 3, 40, 64)
    (logits,) = session.run(["logits"], {"images": images.numpy()})
    with torch.no_grad():
        expected = model(images)["out"]
    torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-4, atol=1e-5)

from __future__ import annotations

from pathlib import Path

import pytest

from diswot.spaces.named import NamedSpace
from diswot.spaces.registry import create_space


def test_a_space_knows_its_name_and_sizes() -> None:
    space = create_space("s0", num_classes=7, img_size=16)

    assert space.facts == {"space": "s0", "classes": 7, "image_size": 16}


@pytest.mark.parametrize(
    ("name", "recorded"),
    [
        ("mine.py:space", "{}/mine.py:space"),
        ("dense:mine.py:space+lraspp", "dense:{}/mine.py:space+lraspp"),
        ("detector:subnet:mine.py:net+fcos", "detector:subnet:{}/mine.py:net+fcos"),
        ("detector:dense.py:net+fcos", "detector:{}/dense.py:net+fcos"),
        ("subnet:timm:vit_tiny_patch16_224", "subnet:timm:vit_tiny_patch16_224"),
        ("timm_zoo:mobilenetv3*", "timm_zoo:mobilenetv3*"),
    ],
)
def test_a_file_is_recorded_with_its_folder(
    name: str, recorded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert NamedSpace(lambda trial: None, name, 7, 8).facts["space"] == recorded.format(tmp_path)

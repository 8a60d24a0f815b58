"""CIFAR through torchvision, made up and real."""

from __future__ import annotations

import zipfile
from collections import Counter
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from data.pictures import as_bytes
from torchvision import datasets

from diswot.data.dataset import whole
from diswot.data.registry import create_dataset
from diswot.errors import UserError


class StubCifar:
    """Torchvision's interface, with a few made-up images."""

    def __init__(self, root: str, train: bool, download: bool) -> None:
        print("Files already downloaded and verified")
        self.root, self.classes = root, ["plane", "car", "bird"]
        count = 30 if train else 6
        random = np.random.default_rng(int(train))
        self.data = random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        self.targets = [i % 3 for i in range(count)]


class TestCifar:
    @pytest.mark.parametrize(("name", "kind"), [("cifar10", "CIFAR10"), ("cifar100", "CIFAR100")])
    def test_through_torchvision(
        self,
        name: str,
        kind: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr(datasets, kind, StubCifar)
        found = create_dataset(name, root=tmp_path)
        assert found.train is not None and found.test is not None
        assert (len(found.train), len(found.test), found.size) == (30, 6, 32)
        assert found.classes == ("plane", "car", "bird") and found.name == name
        stub = StubCifar(str(tmp_path), True, False)
        assert torch.equal(found.train.read([7])[0], as_bytes(stub.data[7]))
        assert found.train.labels.tolist() == stub.targets
        assert capsys.readouterr().out.count("Files") == 1  # the stub's own, made in this test

    @pytest.mark.parametrize("size", [8, 48])
    def test_resized_when_read(
        self, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(datasets, "CIFAR100", StubCifar)
        found = create_dataset("cifar100", root=tmp_path, img_size=size)
        assert found.train is not None and found.size == size
        images = found.train.read([1, 2])
        assert images.shape == (2, 3, size, size) and images.dtype == torch.uint8
        before = StubCifar("", True, False).data[[1, 2]].mean()
        assert float(images.float().mean()) == pytest.approx(before, rel=0.02)

    @pytest.mark.parametrize("name", ["cifar10", "cifar100"])
    def test_absent_and_not_to_be_downloaded(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(UserError) as caught:
            create_dataset(name, root=tmp_path, download=False)
        assert str(caught.value).startswith(f"{name} is not in {tmp_path} and was not to be")
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        "error", [OSError("no route to host"), URLError(OSError("no route to host"))]
    )
    def test_cannot_be_downloaded(
        self, error: OSError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def offline(*args: object, **options: object) -> None:
            raise error

        monkeypatch.setattr(datasets, "CIFAR10", offline)
        with pytest.raises(UserError) as caught:
            create_dataset("cifar10", root=tmp_path)
        reason = f"cifar10 is not in {tmp_path} and cannot be downloaded: no route to host; if you"
        with_what = "with --data-root, or a folder of its images with --data"
        assert str(caught.value) == f"{reason} have it, name its folder {with_what}"

    def test_root_is_a_file(self, tmp_path: Path) -> None:
        place = tmp_path / "file"
        place.write_text("")
        with pytest.raises(UserError, match="cifar10 is not in"):
            create_dataset("cifar10", root=place, download=False)


ZIP = Path(__file__).parents[3] / "shared" / "data" / "cifar100.zip"


@pytest.mark.slow
@pytest.mark.skipif(not ZIP.is_file(), reason=f"no real CIFAR-100 in {ZIP}")
def test_real_cifar100(tmp_path: Path) -> None:
    with zipfile.ZipFile(ZIP) as archive:
        archive.extractall(tmp_path)
    found = create_dataset(str(tmp_path / "cifar100"))
    assert found.train is not None and found.test is not None
    assert (len(found.train), len(found.test)) == (50_000, 10_000)
    assert len(found.classes) == 100 and found.size == 32
    assert set(Counter(found.train.labels.tolist()).values()) == {500}
    images, labels = found.batch(64)
    assert images.shape == (64, 3, 32, 32) and len(set(labels.tolist())) == 64
    pixels, _ = whole(found.test)
    means = pixels.float().mean((0, 2, 3)) / 255
    assert means.tolist() == pytest.approx([0.5071, 0.4865, 0.4409], abs=0.01)

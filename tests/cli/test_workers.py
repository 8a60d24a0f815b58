"""Devices and Ray on the command line."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

import pytest
from commands import Run

from diswot.utils import devices

SMALL = "--teacher resnet20 --data noise --classes 10 --image-size 8 --batch-size 8"
SEARCH = f"search {SMALL} --proxy diswot --max-params 0.1M --trials 2"
TABLE = "blocks1,blocks2,blocks3,acc\n1,1,1,60\n1,1,3,61\n1,3,1,63\n3,1,1,62\n"


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "accelerators", list)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--device cuda", "no device cuda here; there is: cpu"),
        ("--device cuda:3", "no device cuda:3 here; there is: cpu"),
        ("--device meta", "no device meta here"),
        ("--device 'rm -rf'", "no such device: 'rm -rf'"),
        ("--device ''", "no such device: ''"),
        ("--devices all", "no GPU here for torch to compute on; take --device cpu"),
        ("--devices cpu,cuda:0", "score on devices of one kind, not on cpu and cuda"),
        ("--devices cpu,,", "devices of one kind"),
        ("--device cpu --devices cpu", "give --device or --devices, not both"),
        ("--devices cpu,cpu --workers 1", "2 devices need as many workers, not 1"),
        ("--ray-cpus 1", "--ray-cpus and --ray-gpus go with --ray"),
        ("--ray-gpus 0.5", "--ray-cpus and --ray-gpus go with --ray"),
        ("--ray somewhere", "'somewhere' is no address of a Ray cluster: local, auto, HOST:PORT"),
        ("--ray ''", "'' is no address of a Ray cluster"),
        ("--ray local --ray-cpus 0", "a worker's CPUs on Ray must be above zero, not 0"),
        ("--ray local --ray-gpus 1.5", "GPUs on Ray are part of one or whole, not 1.5"),
    ],
)
def test_searches_that_cannot_be(run: Run, options: str, message: str) -> None:
    assert message in run(f"{SEARCH} {options}").mistake()


def test_devices_with_ray(run: Run) -> None:
    pytest.importorskip("ray", reason="no ray here")

    wrong = run(f"{SEARCH} --ray local --devices cpu,cpu").mistake()

    assert "--ray gives each worker its GPU: see --ray-gpus, not --devices" in wrong


def test_ray_where_nothing_listens(run: Run) -> None:
    pytest.importorskip("ray", reason="no ray here")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"

        assert (
            f"no Ray cluster at {address}: Connection refused"
            in run(f"{SEARCH} --ray {address}").mistake()
        )


def test_ray_that_is_not_installed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)

    assert "--ray: needs ray: pip install 'diswot[ray]'" in run(f"{SEARCH} --ray local").mistake()


@pytest.mark.parametrize("command", ["score --student resnet20", "rank --no-out --table TABLE"])
def test_scoring_on_a_device(run: Run, command: str, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(TABLE)
    line = (
        f"{command.replace('TABLE', str(tmp_path / 'table.csv'))} {SMALL} --proxies relation --json"
    )

    plain, there = run(line), run(f"{line} --device cpu")

    assert there.status == 0 and json.loads(there.out) == json.loads(plain.out)
    assert "no device cuda:1 here; there is: cpu" in run(f"{line} --device cuda:1").mistake()

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from diswot.costs.counts import count_params
from diswot.errors import UserError
from diswot.models import channel_dependencies
from diswot.models.block_runs import block_runs
from diswot.models.cifar_resnet import CifarResNet
from diswot.models.correspondence import at_even_depth
from diswot.models.registry import create_teacher
from diswot.models.subnetwork_tracing import sub_networks
from diswot.models.subnetworks import CoupledChannels, SubNetworks, cut

CLASSES = 10


def teacher(name: str, size: int = 32) -> nn.Module:
    """A network in evaluation mode whose batch norms differ from channel to channel."""
    torch.manual_seed(0)
    model = create_teacher(name, CLASSES, size).eval()
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.5, 0.5)
        norm.running_mean.uniform_(-0.5, 0.5)
        norm.running_var.uniform_(0.5, 1.5)
    return model


def traced(name: str, size: int = 32) -> SubNetworks:
    return sub_networks(partial(create_teacher, name, CLASSES, size), size, name)


def images(size: int = 32) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def kept(count: int, share: float) -> list[int]:
    """By NumPy, not by what is tested."""
    wanted = max(1, round(count * share))
    return np.floor(np.linspace(0, count, wanted, endpoint=False)).astype(int).tolist()


# Which channels and blocks


@pytest.mark.parametrize(
    ("count", "wanted", "indices"),
    [(4, 1, [0]), (4, 2, [0, 2]), (5, 3, [0, 1, 3]), (16, 4, [0, 4, 8, 12]), (3, 3, [0, 1, 2])],
)
def test_channels(count: int, wanted: int, indices: list[int]) -> None:
    group = CoupledChannels(count, (), ())
    assert group.kept(wanted / count) == indices == kept(count, wanted / count)


@pytest.mark.parametrize(
    ("count", "wanted", "blocks"),
    [(4, 1, [0]), (4, 2, [0, 3]), (4, 3, [0, 2, 3]), (9, 4, [0, 3, 5, 8]), (2, 2, [0, 1])],
)
def test_blocks(count: int, wanted: int, blocks: list[int]) -> None:
    """Block 1 of 3 is at 1.5 of 4, and is block 2; blocks 1 and 2 of 4 are at 2.67 and 5.33."""
    assert [at_even_depth(place, wanted, count) for place in range(wanted)] == blocks


# Stages


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("resnet20", {"layer1": [3], "layer2": [3], "layer3": [3]}),
        ("torchvision:resnet18", {f"layer{i}": [2] for i in range(1, 5)}),
        ("torchvision:mobilenet_v2", {"features": [1, 2, 3, 4, 3, 3, 1]}),
        ("timm:mobilenetv3_small_100", {f"blocks.{i}": [n] for i, n in enumerate([2, 3, 2, 3], 1)}),
        (
            "torchvision:convnext_tiny",
            {f"features.{2 * i + 1}": [n] for i, n in enumerate([3, 3, 9, 3])},
        ),
        ("torchvision:vgg11", {}),
    ],
)
def test_stages(name: str, stages: dict[str, list[int]]) -> None:
    with torch.device("meta"):
        model = create_teacher(name, CLASSES, 32).eval()
        found = block_runs(model, torch.zeros(2, 3, 32, 32))

    assert [(run.container, len(run.blocks)) for run in found] == [
        (container, depth) for container, depths in stages.items() for depth in depths
    ]


def chain(*blocks: nn.Module) -> nn.Module:
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES)]
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sequential(*blocks), *head)


def layers(inputs: int = 8, outputs: int = 8) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU())


class Branches(nn.Module):
    """Blocks side by side, which are no stage."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.branches = nn.ModuleList([layers(), layers()])
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        logits: Tensor = self.head(sum(branch(x) for branch in self.branches).mean((2, 3)))
        return logits


def test_blocks_side_by_side_are_no_stage() -> None:
    assert block_runs(Branches(), images()) == []


def test_a_layer_between_ends_a_stage() -> None:
    model = chain(layers(), layers(), nn.MaxPool2d(2), layers(), layers(), layers())
    assert [len(run.blocks) for run in block_runs(model, images())] == [2, 3]


# What is computed


def masked(model: nn.Module, share_of: Callable[[str], float]) -> nn.Module:
    """The network with zeros where channels are removed; relu(0) = 0 keeps them zero."""
    model = copy.deepcopy(model)
    for name, norm in model.named_modules():
        if isinstance(norm, nn.BatchNorm2d):
            gone = sorted(
                set(range(norm.num_features)) - set(kept(norm.num_features, share_of(name)))
            )
            norm.weight.data[gone] = norm.bias.data[gone] = 0
    return model


RESNET = {"bn1": 1, "conv1": 1, "layer1": 1, "layer2": 2, "layer3": 3, "layer4": 4}
MOBILENET = dict(
    zip(range(18), [1, 1, 2, 2, *[3] * 3, *[4] * 4, *[5] * 3, *[6] * 3, 7], strict=True)
)


def of_resnet(shares: Sequence[float], name: str) -> float:
    return shares[RESNET[name.partition(".")[0]] - 1]


WIDE_STEM = "benchmarks/distill_teacher.py:resnet20"  # no stage adds to its stem


def of_wide_stem(shares: Sequence[float], name: str) -> float:
    return shares[{"bn1": 0, "layer1": 1, "layer2": 2, "layer3": 3}[name.partition(".")[0]]]


def of_mobilenet(shares: Sequence[float], name: str) -> float:
    place = int(name.split(".")[1])
    return shares[MOBILENET.get(place, 0) - 1]  # the last share is the head's


@pytest.mark.parametrize(
    ("name", "shares", "share_of"),
    [
        ("resnet20", (0.5, 0.25, 0.75), of_resnet),
        ("torchvision:resnet18", (0.75, 1, 0.5, 0.25), of_resnet),
        ("torchvision:mobilenet_v2", (0.5, 0.25, 1, 0.75, 0.5, 0.25, 0.5, 0.75), of_mobilenet),
        (WIDE_STEM, (0.25, 0.5, 1, 0.75), of_wide_stem),
    ],
)
def test_narrow_network_computes_what_zeros_in_the_full_one_do(
    name: str, shares: Sequence[float], share_of: Callable[[Sequence[float], str], float]
) -> None:
    full, found = teacher(name), traced(name)
    wanted = masked(full, partial(share_of, shares))
    narrow = cut(found, copy.deepcopy(full), [stage.depth for stage in found], shares)

    assert count_params(narrow) < count_params(full)
    with torch.no_grad():
        torch.testing.assert_close(narrow(images()), wanted(images()), atol=1e-5, rtol=1e-4)
        assert not torch.allclose(narrow(images()), full(images()), atol=1e-2)


def test_shallow_network_lacks_blocks_at_even_depths() -> None:
    full, found = teacher("resnet20"), traced("resnet20")
    wanted = copy.deepcopy(full)
    wanted.layer1[1] = wanted.layer2[1] = wanted.layer2[2] = nn.Identity()
    shallow = cut(found, copy.deepcopy(full), [2, 1, 3], [1, 1, 1])

    assert [len(shallow.get_submodule(f"layer{i}")) for i in (1, 2, 3)] == [2, 1, 3]
    with torch.no_grad():
        assert torch.equal(shallow(images()), wanted(images()))


def test_full_sub_network_is_the_network() -> None:
    full, found = teacher("resnet20"), traced("resnet20")
    assert cut(found, full, [3, 3, 3], [1, 1, 1]) is full


def test_shapes_are_those_of_a_network_built_so() -> None:
    small = cut(traced("resnet20"), teacher("resnet20"), [1, 2, 3], [0.5, 0.25, 1])
    shapes = {name: value.shape for name, value in small.state_dict().items()}

    wanted = CifarResNet((1, 2, 3), CLASSES, (8, 8, 64)).state_dict()
    assert shapes == {name: value.shape for name, value in wanted.items()}


def test_frozen_parameters_stay_frozen() -> None:
    model = teacher("resnet20")
    model.conv1.weight.requires_grad_(False)
    small = cut(traced("resnet20"), model, [1, 1, 1], [0.5, 1, 1])

    assert small.conv1.weight.shape[0] == 8
    assert [n for n, p in small.named_parameters() if not p.requires_grad] == ["conv1.weight"]


def test_grouped_convolutions_keep_equal_groups() -> None:
    """ResNeXt's 32 groups of 4 channels become 32 groups of 2."""
    name = "timm:resnext26ts"
    found = traced(name)
    small = cut(found, teacher(name), [1] * len(found), [0.5] * len(found))
    with torch.no_grad():
        assert small(images()).shape == (2, CLASSES)
    groups = {m.groups for m in small.modules() if isinstance(m, nn.Conv2d)}
    assert groups == {m.groups for m in teacher(name).modules() if isinstance(m, nn.Conv2d)}


def test_concatenated_channels_are_followed() -> None:
    """One norm reads the channels of several layers."""

    class Concat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 8, 1)
            self.norm, self.c = nn.BatchNorm2d(12), nn.Conv2d(12, 6, 1)
            self.fc = nn.Linear(6, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            x = self.c(self.norm(torch.cat([self.a(x), self.b(x)], 1)))
            logits: Tensor = self.fc(x.mean((2, 3)))
            return logits

    torch.manual_seed(0)
    full = Concat().eval()
    small = cut(sub_networks(Concat, 8, "mine"), copy.deepcopy(full), [1], [0.5])
    rows = [*kept(4, 0.5), *(4 + i for i in kept(8, 0.5))]

    assert torch.equal(small.c.weight, full.c.weight[kept(6, 0.5)][:, rows])
    assert torch.equal(small.norm.running_var, full.norm.running_var[rows])
    with torch.no_grad():
        assert small(images(8)).shape == (2, CLASSES)


# What cannot be


def test_global_state_is_as_before() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    with torch.inference_mode():
        traced("resnet20")
    assert torch.equal(torch.get_rng_state(), before)


def test_network_that_needs_values_is_traced_on_the_cpu() -> None:
    class Valued(CifarResNet):
        def __init__(self) -> None:
            super().__init__((1, 2, 1), CLASSES)
            float(self.conv1.weight.detach().sum())

    assert [stage.depth for stage in sub_networks(Valued, 32, "mine")] == [1, 2, 1]


def test_network_that_does_not_run_is_refused_with_the_module() -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sequential(nn.Conv2d(4, 8, 3)))

    with pytest.raises(
        UserError, match=r"mine cannot run on images of 8 pixels: 1\.0: Runtime"
    ) as e:
        sub_networks(build, 8, "mine")
    assert "\n" not in str(e.value)


def test_nothing_to_remove_is_refused() -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, CLASSES))

    with pytest.raises(UserError, match="mine: nothing can be removed: it repeats no blocks"):
        sub_networks(build, 8, "mine")


def test_trained_parameters_need_not_be(caplog: pytest.LogCaptureFixture) -> None:
    """A frozen teacher is traced by gradients all the same."""
    found = sub_networks(lambda: CifarResNet((1, 2, 1)).requires_grad_(False), 32, "mine")

    assert [len(stage.coupled) for stage in found] == [2, 3, 2] and not caplog.messages


def test_network_that_torch_pruning_cannot_trace_has_depths(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """ShuffleNet splits channels in a way that torch-pruning divides by zero."""
    found = traced("torchvision:shufflenet_v2_x0_5")

    assert [(stage.depth, stage.coupled) for stage in found] == [(4, ()), (8, ()), (4, ())]
    (line,) = caplog.messages
    assert "torch-pruning cannot follow it: ZeroDivisionError: " in line


def test_channels_without_end_stay(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(channel_dependencies, "_LONGEST", -1.0)
    found = traced("resnet20")

    assert [(stage.depth, stage.coupled) for stage in found] == [(3, ())] * 3
    assert "cannot follow fc: TimeoutError: no end after -1 s" in caplog.messages[0]


class Stubborn(nn.Module):
    """A block whose forward pass has its width written into it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(8, 12, 1), nn.Conv2d(12, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x).reshape(len(x), 12, *x.shape[2:])
        return x + self.b(y)


def test_channels_that_cannot_be_removed_stay(caplog: pytest.LogCaptureFixture) -> None:
    found = sub_networks(lambda: chain(Stubborn(), Stubborn()), 8, "mine")

    (line,) = caplog.messages
    assert line.startswith("mine: some parts keep their size: torch-pruning cannot narrow 1.1.a, ")
    assert "RuntimeError" in line and "\n" not in line
    small = cut(found, chain(Stubborn(), Stubborn()), [1], [0.5])
    assert small[1][0].a.weight.shape[:2] == (12, 4)
    with torch.no_grad():
        assert small(images(8)).shape == (2, CLASSES)

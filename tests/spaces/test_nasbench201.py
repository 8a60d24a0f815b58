from __future__ import annotations

import csv
import gzip
import itertools
import random
from collections.abc import Iterator, Mapping
from pathlib import Path

import optuna
import pytest
import torch
import torch.nn.functional as F
from optuna.trial import FixedTrial
from torch import Tensor, nn

from diswot.spaces import nasbench201

TABLE = Path(__file__).parents[3] / "shared" / "data" / "nasbench201.csv.gz"
EDGES = ("op_1_0", "op_2_0", "op_2_1", "op_3_0", "op_3_1", "op_3_2")
MIXED = (
    "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+"
    "|nor_conv_1x1~0|skip_connect~1|skip_connect~2|"
)
# A convolution of a node that is zero; a node that nothing reads; one read by `none` only.
ODD = (
    "|none~0|+|nor_conv_3x3~0|nor_conv_1x1~1|+|skip_connect~0|nor_conv_3x3~1|none~2|",
    "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|nor_conv_3x3~2|",
    "|none~0|+|none~0|avg_pool_3x3~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|",
    "|none~0|+|none~0|skip_connect~1|+|none~0|none~1|avg_pool_3x3~2|",
    "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|none~1|none~2|",
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Thousands of tiny kernels: two threads that share a busy core wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def chosen(*operations: str) -> dict[str, str]:
    return dict(zip(EDGES, operations, strict=True))


def every_cell() -> Iterator[dict[str, str]]:
    for operations in itertools.product(nasbench201.OPERATIONS, repeat=6):
        yield chosen(*operations)


def random_cells(count: int) -> list[dict[str, str]]:
    draw = random.Random(201)
    return [chosen(*draw.choices(nasbench201.OPERATIONS, k=6)) for _ in range(count)]


def on_meta(params: dict[str, str], classes: int = 10) -> nn.Module:
    with torch.device("meta"):
        return nasbench201.build(FixedTrial(params), num_classes=classes)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def macs(network: nn.Module) -> int:
    """Multiplications of weights for one image of 32 x 32, of modules that run or not."""
    positions = {"stem": 1024, "stage1": 1024, "stage2": 256, "stage3": 64, "classifier": 1}
    return sum(
        module.weight.numel() * positions[name.split(".")[0]]
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    )


def shaken(params: dict[str, str], **options: int) -> nn.Module:
    """A network none of whose norms is the identity."""
    generator = torch.Generator().manual_seed(7)
    network = nasbench201.build(FixedTrial(params), **options)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(-0.5, 0.5, generator=generator)
    for name, buffer in network.named_buffers():
        if name.endswith("running_var"):
            buffer.abs_().add_(0.5)
    return network.double()


def images(size: int = 8, channels: int = 3, count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(count, channels, size, size, generator=generator, dtype=torch.float64)


class Naive:
    """The benchmark's network as formulas on a state dict: every edge is computed, `none` as 0."""

    def __init__(self, network: nn.Module, params: Mapping[str, str]) -> None:
        self.state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        self.params = params
        self.training = network.training

    def norm(self, x: Tensor, name: str) -> Tensor:
        if self.training:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
        else:
            mean, var = self.state[f"{name}.running_mean"], self.state[f"{name}.running_var"]
        mean, var = mean[None, :, None, None], var[None, :, None, None]
        weight = self.state[f"{name}.weight"][None, :, None, None]
        bias = self.state[f"{name}.bias"][None, :, None, None]
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    def relu_conv_norm(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = self.state[f"{name}.1.weight"]
        x = F.conv2d(x.clamp(min=0), weight, stride=stride, padding=weight.shape[-1] // 2)
        return self.norm(x, f"{name}.2")

    def pooled(self, x: Tensor) -> Tensor:
        """The mean over those of the 3 x 3 neighbours that lie inside the map."""
        ones = torch.ones_like(x)
        sums = [F.unfold(t, 3, padding=1).view(len(x), x.shape[1], 9, -1).sum(2) for t in (x, ones)]
        return (sums[0] / sums[1]).view_as(x)

    def cell(self, x: Tensor, name: str) -> Tensor:
        nodes = [x]
        for node in range(1, 4):
            total = torch.zeros_like(x)
            for source in range(node):
                edge = f"op_{node}_{source}"
                kind = self.params[edge]
                if kind == "skip_connect":
                    total = total + nodes[source]
                elif kind == "avg_pool_3x3":
                    total = total + self.pooled(nodes[source])
                elif kind != "none":
                    assert self.state[f"{name}.edges.{edge}.1.weight"].shape[-1] == int(kind[-1])
                    total = total + self.relu_conv_norm(nodes[source], f"{name}.edges.{edge}")
            nodes.append(total)
        return nodes[3]

    def reduction(self, x: Tensor, name: str) -> Tensor:
        residual = self.relu_conv_norm(x, f"{name}.residual.0", stride=2)
        residual = self.relu_conv_norm(residual, f"{name}.residual.1")
        quarters = [x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)]
        weight = self.state[f"{name}.shortcut.1.weight"][:, :, 0, 0]
        return residual + torch.einsum("oc,bchw->bohw", weight, sum(quarters) / 4)

    def logits(self, x: Tensor) -> Tensor:
        x = self.norm(F.conv2d(x, self.state["stem.0.weight"], padding=1), "stem.1")
        for stage in (1, 2, 3):
            if stage > 1:
                x = self.reduction(x, f"stage{stage}.0")
            for index in range(5):
                x = self.cell(x, f"stage{stage}.{index + (stage > 1)}")
        x = self.norm(x, "norm.0").clamp(min=0).mean((2, 3))
        return x @ self.state["classifier.weight"].T + self.state["classifier.bias"]


def to_string(params: dict[str, str]) -> str:
    """Write a cell in the notation of the benchmark."""
    nodes = [[f"{params[f'op_{j}_{i}']}~{i}|" for i in range(j)] for j in (1, 2, 3)]
    return "+".join("|" + "".join(node) for node in nodes)


def table_rows(count: int) -> list[dict[str, str]]:
    if not TABLE.exists():
        pytest.skip(f"the accuracy table {TABLE} is absent")
    with gzip.open(TABLE, "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    return random.Random(0).sample(rows, count)


# The benchmark's notation


def test_every_cell_survives_the_round_trip() -> None:
    texts = set()
    for params in every_cell():
        text = to_string(params)
        assert nasbench201.from_string(text) == params
        texts.add(text)
    assert len(texts) == 15_625


def test_a_string_is_read_as_the_benchmark_writes_it() -> None:
    params = chosen(
        "avg_pool_3x3",
        "nor_conv_1x1",
        "skip_connect",
        "nor_conv_1x1",
        "skip_connect",
        "skip_connect",
    )
    assert nasbench201.from_string(MIXED) == params
    assert to_string(params) == MIXED


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("|avg_pool_3x3~0|+", "", "3 groups"),
        (MIXED, "", "3 groups"),
        (MIXED, MIXED + "+|none~0|", "4"),
        ("|avg_pool_3x3~0|+", "avg_pool_3x3~0|+", "'avg_pool_3x3~0|'"),
        ("|avg_pool_3x3~0|+", "|+", "node 1"),
        ("|avg_pool_3x3~0|+", "+", "node 1"),
        ("|skip_connect~1|+", "|+", "node 2 must read |op~0|op~1|, not '|nor_conv_1x1~0|'"),
        ("skip_connect~2|", "skip_connect~2|none~3|", "node 3"),
        ("skip_connect~2", "skip_connect~1", "~2: 'skip_connect~1'"),
        ("skip_connect~2", "skip_connect", "~2: 'skip_connect'"),
        ("avg_pool_3x3", "", "operation of op_1_0 ''"),
        ("avg_pool_3x3", "nor_conv_3x4", "op_1_0 'nor_conv_3x4'"),
        ("avg_pool_3x3", "nor_conv_3x4", "nor_conv_3x3 or nor_conv_1x1"),
        ("skip_connect~2", "conv~2", "op_3_2 'conv'"),
        ("skip_connect~2", "zzz~2", "avg_pool_3x3, none, nor_conv_1x1, nor_conv_3x3, skip_connect"),
    ],
)
def test_a_malformed_string_is_one_clear_line(old: str, new: str, part: str) -> None:
    with pytest.raises(ValueError) as caught:
        nasbench201.from_string(MIXED.replace(old, new))
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


# Counts


def test_parameters_counted_by_hand() -> None:
    stem = 3 * 16 * 9 + 2 * 16
    blocks = sum(c * 2 * c * 9 + 4 * c + 4 * c * c * 9 + 4 * c + c * 2 * c for c in (16, 32))
    bare = stem + blocks + 2 * 64 + 64 * 10 + 10
    assert bare == 73_306
    one = 5 * sum(c * c + 2 * c for c in (16, 32, 64))
    three = 5 * sum(9 * c * c + 2 * c for c in (16, 32, 64))
    assert (one, three) == (28_000, 243_040)
    for kind, each in zip(nasbench201.OPERATIONS, (0, 0, one, three, 0), strict=True):
        assert parameters(on_meta(chosen(*[kind] * 6))) == bare + 6 * each
    wide = parameters(on_meta(nasbench201.from_string(MIXED), classes=100))
    assert wide == bare + 2 * one + 90 * 65


def test_counts_are_those_of_the_benchmark() -> None:
    for row in table_rows(60):
        network = on_meta(nasbench201.from_string(row["arch"]))
        assert round(parameters(network) / 1e6, 4) == float(row["params_m"]), row
        assert round(macs(network) / 1e6, 4) == float(row["macs_m"]), row


# The forward pass


@pytest.mark.parametrize("params", random_cells(40), ids=to_string)
def test_a_cell_is_the_sum_over_its_edges(params: dict[str, str]) -> None:
    network = shaken(params)
    x = images(channels=16)
    before = x.clone()
    expected = Naive(network, params).cell(x, "stage1.2")
    torch.testing.assert_close(network.stage1[2](x), expected)
    assert torch.equal(x, before)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("text", [MIXED, *ODD])
def test_the_network_is_the_benchmarks(text: str, mode: str) -> None:
    params = nasbench201.from_string(text)
    network = shaken(params).train(mode == "train")
    expected = Naive(network, params).logits(images())
    torch.testing.assert_close(network(images()), expected)


def test_pooling_leaves_the_padding_out() -> None:
    params = nasbench201.from_string("|none~0|+|none~0|none~1|+|avg_pool_3x3~0|none~1|none~2|")
    x = torch.arange(9.0).view(1, 1, 3, 3).expand(1, 16, 3, 3)
    pooled = nasbench201.build(FixedTrial(params)).stage1[0](x)
    assert pooled[0, 5].tolist() == [[2, 2.5, 3], [3.5, 4, 4.5], [5, 5.5, 6]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "|nor_conv_3x3~0|+|nor_conv_1x1~0|nor_conv_3x3~1|+"
            "|nor_conv_1x1~0|skip_connect~1|none~2|",
            ["op_1_0", "op_3_0", "op_3_1"],
        ),
        (
            "|none~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|avg_pool_3x3~1|avg_pool_3x3~2|",
            ["op_3_0"],
        ),
        (
            "|none~0|+|none~0|nor_conv_1x1~1|+|none~0|skip_connect~1|skip_connect~2|",
            ["op_2_1", "op_3_2"],
        ),
    ],
)
def test_an_edge_that_cannot_matter_is_not_run(text: str, expected: list[str]) -> None:
    network = nasbench201.build(FixedTrial(nasbench201.from_string(text)))
    ran: list[str] = []
    for name, module in network.stage1[0].edges.items():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    network(images().float())
    assert ran == expected


def test_a_cell_without_a_path_gives_finite_constant_logits() -> None:
    network = nasbench201.build(FixedTrial(chosen(*["none"] * 6)), num_classes=7)
    for mode in (True, False):
        logits = network.train(mode)(images().float())
        assert logits.isfinite().all()
        assert (logits == logits[0]).all()
    logits.sum().backward()


# The function of a trial


def test_samples_build_and_run() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for classes in (1, 10, 100):
        for _ in range(5):
            trial = study.ask()
            network = nasbench201.build(trial, num_classes=classes)
            assert tuple(trial.params) == EDGES
            assert network(images(count=2).float()).shape == (2, classes)


def test_stages_end_in_named_modules() -> None:
    network, shapes = nasbench201.build(FixedTrial(nasbench201.from_string(MIXED))), {}
    for name, module in network.named_children():
        module.register_forward_hook(lambda *a, name=name: shapes.update({name: a[2].shape[1:]}))
    network(images(size=32, count=2).float())
    assert shapes == {
        "stem": (16, 32, 32),
        "stage1": (16, 32, 32),
        "stage2": (32, 16, 16),
        "stage3": (64, 8, 8),
        "norm": (64, 8, 8),
        "pool": (64, 1, 1),
        "flatten": (64,),
        "classifier": (100,),
    }


def test_modules_are_as_in_the_trained_networks() -> None:
    modules = list(on_meta(chosen(*["nor_conv_3x3"] * 6)).modules())
    norms = [module for module in modules if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 1 + 15 * 6 + 2 * 2 + 1
    assert all(norm.affine and norm.track_running_stats for norm in norms)
    assert not any(module.inplace for module in modules if isinstance(module, nn.ReLU))
    assert not any(m.bias is not None for m in modules if isinstance(m, nn.Conv2d))


def test_a_fixed_trial_rebuilds_the_network() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    trial = study.ask()
    first = nasbench201.build(trial).state_dict()
    second = on_meta(trial.params, classes=100).state_dict()
    assert {k: v.shape for k, v in first.items()} == {k: v.shape for k, v in second.items()}
    assert all(tensor.is_meta for tensor in second.values())


def test_all_is_suggested_before_anything_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pruning(FixedTrial):
        def suggest_categorical(self, name, choices):
            if name == EDGES[-1]:
                raise optuna.TrialPruned
            return super().suggest_categorical(name, choices)

    monkeypatch.setattr(nn.Module, "__init__", lambda self: pytest.fail("a module was built"))
    with pytest.raises(optuna.TrialPruned):
        nasbench201.build(Pruning(nasbench201.from_string(MIXED)))

"""The NAS-Bench-201 space: 15,625 cells of five operations on six edges.

A cell has four nodes: node 0 is its input, node 3 its output, and every later node is the sum of
one operation on each earlier node. The network stacks five equal cells in each of three stages.

    images -> stem -> stage1 -> stage2 -> stage3 -> norm -> pool -> flatten -> classifier

The stem and stage 1 give B x 16 x H x W, stage 2 B x 32 x H/2 x W/2, stage 3 and the norm, which
ends in a ReLU, B x 64 x H/4 x W/4.

Paper: Dong and Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture
Search", ICLR 2020, arXiv 2001.00326; the topology space of NATS-Bench, arXiv 2009.00437.

The benchmark's own figures follow two conventions. Parameters: all trainable ones, batch norm and
biases included. MACs: the multiplications of convolutions and of the classifier for one image of
32 x 32, nothing else. Both count a convolution even where its result reaches no output.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Mapping

import torch
from optuna.trial import BaseTrial
from torch import Tensor, nn

from diswot.errors import UserError, unknown

OPERATIONS: tuple[str, ...] = (
    "none",
    "skip_connect",
    "nor_conv_1x1",
    "nor_conv_3x3",
    "avg_pool_3x3",
)
NODES = (1, 2, 3)
SIZE = len(OPERATIONS) ** sum(NODES)
WIDTHS = (16, 32, 64)
CELLS = 5


def build(trial: BaseTrial, classes: int = 100, channels: int = 3) -> nn.Module:
    """Build the network of one cell, chosen by six categorical parameters.

    The parameter `op_2_1` is the operation on the edge into node 2 from node 1. All six are
    suggested before the first module is made. The last output of each resolution is the output of
    the children `stage1`, `stage2` and `stage3`.

    Args:
        trial: asked for `op_1_0`, `op_2_0`, `op_2_1`, `op_3_0`, `op_3_1` and `op_3_2`.
        classes: K, the width of the logits.
        channels: of the images, whose height and width must be multiples of 4.
    """
    names = [_edge(node, source) for node in NODES for source in range(node)]
    operations = {name: trial.suggest_categorical(name, OPERATIONS) for name in names}
    first, second, third = WIDTHS
    layers = OrderedDict(
        stem=nn.Sequential(
            nn.Conv2d(channels, first, 3, padding=1, bias=False), nn.BatchNorm2d(first)
        ),
        stage1=nn.Sequential(*_cells(operations, first)),
        stage2=nn.Sequential(Reduction(first, second), *_cells(operations, second)),
        stage3=nn.Sequential(Reduction(second, third), *_cells(operations, third)),
        norm=nn.Sequential(nn.BatchNorm2d(third), nn.ReLU()),
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        classifier=nn.Linear(third, classes),
    )
    return nn.Sequential(layers)


def to_string(params: Mapping[str, str]) -> str:
    """Write parameters in the benchmark's notation, `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`.

    Raises:
        UserError: if one of the six parameters is missing, or its operation is unknown.
    """
    nodes = []
    for node in NODES:
        terms = [f"{_chosen(params, _edge(node, source))}~{source}" for source in range(node)]
        nodes.append("|" + "|".join(terms) + "|")
    return "+".join(nodes)


def from_string(text: str) -> dict[str, str]:
    """Read the benchmark's notation into the parameters that `FixedTrial` takes.

    Raises:
        UserError: naming the part that is malformed, reads a wrong input or is unknown.
    """
    groups = text.split("+")
    if len(groups) != len(NODES):
        raise UserError(f"a cell is 3 groups joined by '+', not {len(groups)}: {text!r}")
    params = {}
    for node, group in zip(NODES, groups, strict=True):
        for source, operation in enumerate(_parse_node(node, group)):
            params[_edge(node, source)] = operation
    for name in params:
        _chosen(params, name)
    return params


class Cell(nn.Module):
    """Four nodes, six edges; B x C x H x W in and out.

    Every operation of the cell is held, as the benchmark counts them, but an edge is run only if
    it can change the output: `none` is never run, nor is what only `none` reads, nor a skip or a
    pooling of a node that is zero. A convolution of zeros is run, for its normalisation has a
    bias. The output is the benchmark's; batch norms that are not run keep their statistics, and
    MACs counted during a forward pass are below the benchmark's where convolutions are not run.
    """

    def __init__(self, operations: Mapping[str, str], width: int) -> None:
        """Build the operations at `width` channels, named as the parameters are."""
        super().__init__()
        used = {name: kind for name, kind in operations.items() if kind != "none"}
        self.edges = nn.ModuleDict({name: _operation(kind, width) for name, kind in used.items()})
        self.sources = _sources(operations)

    def forward(self, x: Tensor) -> Tensor:
        """Sums, node by node, the operations on earlier nodes."""
        nodes = {0: x}
        for node, sources in self.sources.items():
            terms = [self.edges[_edge(node, source)](nodes[source]) for source in sources]
            nodes[node] = functools.reduce(torch.add, terms) if terms else torch.zeros_like(x)
        return nodes[NODES[-1]]


class Reduction(nn.Module):
    """The residual block between stages: halves height and width, which must be even."""

    def __init__(self, inputs: int, outputs: int) -> None:
        """Build a block from `inputs` to `outputs` channels."""
        super().__init__()
        self.residual = nn.Sequential(
            _convolution(inputs, outputs, 3, stride=2), _convolution(outputs, outputs, 3)
        )
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(inputs, outputs, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Map B x C x H x W to B x C' x H/2 x W/2."""
        return torch.add(self.shortcut(x), self.residual(x))


def _edge(node: int, source: int) -> str:
    return f"op_{node}_{source}"


def _cells(operations: Mapping[str, str], width: int) -> list[Cell]:
    return [Cell(operations, width) for _ in range(CELLS)]


def _convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Sequential:
    """ReLU, convolution, batch norm: the benchmark's order."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False),
        nn.BatchNorm2d(outputs),
    )


def _operation(kind: str, width: int) -> nn.Module:
    if kind == "skip_connect":
        return nn.Identity()
    if kind == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    return _convolution(width, width, 1 if kind == "nor_conv_1x1" else 3)


def _sources(operations: Mapping[str, str]) -> dict[int, list[int]]:
    """For each node that the output depends on, in order, the earlier nodes that it must read."""
    sources: dict[int, list[int]] = {0: [0]}
    for node in NODES:
        kinds = [operations[_edge(node, source)] for source in range(node)]
        sources[node] = [s for s, kind in enumerate(kinds) if _passes(kind, bool(sources[s]))]
    read = {NODES[-1]}
    for node in reversed(NODES):
        if node in read:
            read.update(sources[node])
    return {node: sources[node] for node in NODES if node in read}


def _passes(kind: str, fed: bool) -> bool:
    """Whether an operation can return anything but zeros; `fed` if its input can."""
    return kind.startswith("nor_conv") or (fed and kind != "none")


def _parse_node(node: int, group: str) -> list[str]:
    """Read `|op~0|op~1|` into its operations, of any name."""
    terms = group[1:-1].split("|")
    if not (group.startswith("|") and group.endswith("|")) or len(terms) != node:
        shape = "|" + "".join(f"op~{source}|" for source in range(node))
        raise UserError(f"node {node} must read {shape}, not {group!r}")
    parts = [term.rpartition("~") for term in terms]
    for source, (term, (_, _, given)) in enumerate(zip(terms, parts, strict=True)):
        if given != str(source):
            raise UserError(f"operation {source} of node {node} must end in ~{source}: {term!r}")
    return [operation for operation, _, _ in parts]


def _chosen(params: Mapping[str, str], name: str) -> str:
    """The operation of one edge, known to exist."""
    if name not in params:
        raise UserError(f"parameter {name!r} is missing")
    operation = params[name]
    if operation not in OPERATIONS:
        raise unknown(f"operation of {name}", str(operation), OPERATIONS)
    return operation

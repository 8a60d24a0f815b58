"""Cells of four nodes and six edges, as NAS-Bench-201 and TransNAS-Bench-101 have them.

The convolutions, with batch norms and ReLUs, are those of other benchmarks, too.

Node 0 is the input, node 3 the output, and every later node is the sum of one operation on each
earlier node. The parameter `op_2_1` is the operation on the edge into node 2 from node 1.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

NODES = (1, 2, 3)
EDGES = tuple(f"op_{node}_{source}" for node in NODES for source in range(node))

MakeOperation = Callable[[str, int], nn.Module]


class Cell(nn.Module):
    """A cell of operations.

    The cell holds every operation, as the benchmarks count them, but runs an edge only if the edge
    can change the output: not `none`, not an edge that only `none` reads, and not a skip or a
    pooling of a node that is zero. A convolution of zeros runs, since its batch norm has a bias.
    The output is that of the benchmark. Batch norms that do not run keep their statistics, and a
    forward pass has fewer MACs than the benchmark counts if a convolution does not run.

    Args:
        operations: Names of the operations by parameter; names of convolutions start with
            `nor_conv`.
        make: Returns the module of an operation on a node, whose number is the second argument.
        width: Channels of the output.
        stride: Stride of all operations on node 0.
    """

    def __init__(
        self, operations: Mapping[str, str], make: MakeOperation, width: int, stride: int = 1
    ) -> None:
        super().__init__()
        edges = {
            name: make(kind, int(name[-1])) for name, kind in operations.items() if kind != "none"
        }
        self.edges = nn.ModuleDict(edges)
        self.sources = _sources(operations)
        self.width, self.stride = width, stride

    def forward(self, x: Tensor) -> Tensor:
        """Map B x C x H x W to B x C' x H/s x W/s: compute the nodes in order."""
        nodes = {0: x}
        for node, sources in self.sources.items():
            terms = [self.edges[f"op_{node}_{source}"](nodes[source]) for source in sources]
            nodes[node] = functools.reduce(torch.add, terms) if terms else self._zeros(x)
        return nodes[NODES[-1]]

    def _zeros(self, x: Tensor) -> Tensor:
        """Return an output of zeros."""
        first = torch.zeros_like(x[:, :1, :: self.stride, :: self.stride])
        return first.expand(-1, self.width, -1, -1)


class Residual(nn.Module):
    """The sum of two branches that return maps of one shape."""

    def __init__(self, residual: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.residual, self.shortcut = residual, shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Map B x C x H x W to B x C' x H/s x W/s."""
        return torch.add(self.shortcut(x), self.residual(x))


def conv_bn(
    inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Build a convolution and a batch norm."""
    conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


def conv_bn_relu(
    inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Build a convolution, a batch norm and a ReLU."""
    return nn.Sequential(*conv_bn(inputs, outputs, size, stride, groups), nn.ReLU())


def convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Sequential:
    """Build a ReLU, a convolution and a batch norm, in the order of the benchmarks."""
    return nn.Sequential(nn.ReLU(), *conv_bn(inputs, outputs, size, stride))


def _sources(operations: Mapping[str, str]) -> dict[int, list[int]]:
    """Return, for each node that the output depends on, the earlier nodes that it must read."""
    sources: dict[int, list[int]] = {0: [0]}
    for node in NODES:
        kinds = [operations[f"op_{node}_{source}"] for source in range(node)]
        sources[node] = [s for s, kind in enumerate(kinds) if _passes(kind, bool(sources[s]))]
    read = {NODES[-1]}
    for node in reversed(NODES):
        if node in read:
            read.update(sources[node])
    return {node: sources[node] for node in NODES if node in read}


def _passes(kind: str, fed: bool) -> bool:
    """Say whether an operation can return anything but zeros; `fed`: whether its input can."""
    return kind.startswith("nor_conv") or (fed and kind != "none")

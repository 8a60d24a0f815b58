"""The NAS-Bench-201 space: 15,625 cells of five operations on six edges.

`spaces.cells` has the cell. The network stacks five equal cells in each of three stages.

    images -> stem -> stage1 -> stage2 -> stage3 -> norm -> pool -> flatten -> classifier

The stem and stage 1 return B x 16 x H x W; stage 2 returns B x 32 x H/2 x W/2. Stage 3 and the
norm, which ends in a ReLU, return B x 64 x H/4 x W/4.

Paper: Dong and Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture
Search", ICLR 2020, arXiv 2001.00326; the topology space of NATS-Bench, arXiv 2009.00437.

The figures of the benchmark follow two conventions. Parameters: all trainable ones, with batch
norms and biases. MACs: the multiplications of convolutions and of the classifier for one image of
32 x 32. Both count a convolution even if its result does not reach the output.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from optuna.trial import BaseTrial
from torch import nn

from diswot.errors import UserError, unknown
from diswot.spaces.cells import EDGES, NODES, Cell, Residual, conv_bn, convolution

OPERATIONS: tuple[str, ...] = (
    "none",
    "skip_connect",
    "nor_conv_1x1",
    "nor_conv_3x3",
    "avg_pool_3x3",
)
SIZE = len(OPERATIONS) ** len(EDGES)
WIDTHS = (16, 32, 64)
CELLS = 5


def build(trial: BaseTrial, num_classes: int = 100) -> nn.Module:
    """Build the network of one cell, `op_1_0`, `op_2_0`, `op_2_1`, `op_3_0`, `op_3_1` and `op_3_2`.

    All six are suggested before the first module is made. The last output of each resolution is the
    output of the children `stage1`, `stage2` and `stage3`. Height and width of the images must be
    multiples of 4.
    """
    operations = {name: trial.suggest_categorical(name, OPERATIONS) for name in EDGES}
    first, second, third = WIDTHS
    layers = OrderedDict(
        stem=conv_bn(3, first, 3),
        stage1=nn.Sequential(*_cells(operations, first)),
        stage2=nn.Sequential(reduction(first, second), *_cells(operations, second)),
        stage3=nn.Sequential(reduction(second, third), *_cells(operations, third)),
        norm=nn.Sequential(nn.BatchNorm2d(third), nn.ReLU()),
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        classifier=nn.Linear(third, num_classes),
    )
    return nn.Sequential(layers)


def from_string(text: str) -> dict[str, str]:
    """Convert the notation of the benchmark, `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`, to parameters.

    Raises:
        UserError: A part is malformed, reads a wrong node or is unknown; the error names the part.
    """
    groups = text.split("+")
    if len(groups) != len(NODES):
        raise UserError(f"a cell is 3 groups joined by '+', not {len(groups)}: {text!r}")
    params = {}
    for node, group in zip(NODES, groups, strict=True):
        for source, operation in enumerate(_parse_node(node, group)):
            params[f"op_{node}_{source}"] = operation
    for name, operation in params.items():
        if operation not in OPERATIONS:
            raise unknown(f"operation of {name}", operation, OPERATIONS)
    return params


def reduction(inputs: int, outputs: int) -> Residual:
    """Build the block between stages that halves height and width, which must be even."""
    residual = nn.Sequential(
        convolution(inputs, outputs, 3, stride=2), convolution(outputs, outputs, 3)
    )
    shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(inputs, outputs, 1, bias=False))
    return Residual(residual, shortcut)


def cell(operations: Mapping[str, str], width: int) -> Cell:
    """Build a cell of operations by parameter, which keeps the shape B x C x H x W."""
    return Cell(operations, lambda kind, source: _operation(kind, width), width)


def _cells(operations: Mapping[str, str], width: int) -> list[Cell]:
    return [cell(operations, width) for _ in range(CELLS)]


def _operation(kind: str, width: int) -> nn.Module:
    if kind == "skip_connect":
        return nn.Identity()
    if kind == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    return convolution(width, width, 1 if kind == "nor_conv_1x1" else 3)


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

"""The NAS-Bench-101 space: cells of at most seven vertices and nine edges.

A cell is a directed graph. Vertex 0 is the input, vertex 6 the output, and each vertex between is
one operation on the sum of its incoming edges. The output concatenates the vertices before it,
which share the channels of the cell. Any other vertex has as many channels as the widest vertex
that reads it; a narrower vertex reads the first channels. The input passes a 1x1 convolution on
each edge, and is added to the output.

    images -> stem -> stack1 -> stack2 -> stack3 -> pool -> flatten -> classifier

Three equal cells a stack. The stem and stack 1 return B x 128 x H x W; stack 2 returns B x 256 x
H/2 x W/2, and stack 3 B x 512 x H/4 x W/4.

Paper: Ying et al., "NAS-Bench-101: Towards Reproducible Neural Architecture Search", ICML 2019,
arXiv 1902.09635. Every convolution is followed by batch norm and ReLU and has no bias; parameters
are all trainable ones, as the benchmark counts them. There are 423,624 different cells.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import reduce
from itertools import pairwise, permutations

import torch
from optuna.trial import BaseTrial
from torch import Tensor, nn

from diswot.errors import UserError
from diswot.spaces.cells import conv_bn_relu

OPERATIONS: tuple[str, ...] = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")
VERTICES, EDGES = 7, 9
WIDTHS = (128, 256, 512)
CELLS = 3
SIZE = 423_624

Edges = frozenset[tuple[int, int]]

_OUTPUT = VERTICES - 1
_PAIRS = tuple(f"{i}-{j}" for j in range(1, VERTICES) for i in range(j))


def build(trial: BaseTrial, num_classes: int = 10) -> nn.Module:
    """Build the network of one cell, chosen by fourteen categorical parameters.

    The parameters `edge_1` to `edge_9` are edges, such as `0-6` from the input to the output. An
    edge that appears twice counts once, so that every cell has at most nine edges. `op_1` to
    `op_5` are the operations of the vertices between. This is the benchmark's encoding with one
    variable an edge (section 4.1), except that edges may repeat. Vertices on no path from the
    input to the output are not built. Height and width of the images must be multiples of 4.

    Raises:
        UserError: No path leads from the input to the output.
    """
    chosen = [trial.suggest_categorical(f"edge_{k}", _PAIRS) for k in range(1, EDGES + 1)]
    named = {
        vertex: trial.suggest_categorical(f"op_{vertex}", OPERATIONS)
        for vertex in range(1, _OUTPUT)
    }
    edges = _alive(frozenset(_pair(text) for text in chosen))
    stem = conv_bn_relu(3, WIDTHS[0], 3)
    layers = OrderedDict(
        stem=stem,
        stack1=_stack(edges, named, WIDTHS[0], WIDTHS[0]),
        stack2=nn.Sequential(nn.MaxPool2d(2), *_stack(edges, named, WIDTHS[0], WIDTHS[1])),
        stack3=nn.Sequential(nn.MaxPool2d(2), *_stack(edges, named, WIDTHS[1], WIDTHS[2])),
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        classifier=nn.Linear(WIDTHS[2], num_classes),
    )
    return nn.Sequential(layers)


def from_matrix(
    matrix: Sequence[Sequence[int]], operations: Sequence[str], count: int | None = None
) -> dict[str, str]:
    """Convert a cell of the benchmark to parameters.

    The vertices of a cell can be numbered in several ways, and the rest of a division of channels
    goes to the vertices with lower numbers. The figures of the benchmark belong to one numbering,
    which is not always that of its matrix (in 83 of 5,000 rows). `count` decides the numbering.

    Args:
        matrix: V x V, upper triangular; 1 where an edge leads from the row to the column.
        operations: V names: `input`, those of `OPERATIONS`, `output`.
        count: Trainable parameters of the network for 10 classes. If the numbering of the matrix
            has another count, the first numbering with this count is used, if there is one. None,
            the default: the numbering of the matrix.

    Raises:
        UserError: The cell is not in the space.
    """
    _check(matrix, operations)
    edges, named = _numbered(matrix, operations, range(len(matrix)))
    _alive(edges)
    if count is not None and parameters(edges, named) != count:
        inner = range(1, len(matrix) - 1)
        orders = ([0, *order, len(matrix) - 1] for order in permutations(inner))
        others = (_numbered(matrix, operations, o) for o in orders if _upward(matrix, o))
        fitting = (other for other in others if parameters(*other) == count)
        edges, named = next(fitting, (edges, named))
    listed = sorted(edges)
    slots = [*listed, *[listed[-1]] * (EDGES - len(listed))]
    params = {f"edge_{k}": f"{i}-{j}" for k, (i, j) in enumerate(slots, 1)}
    inner = range(1, _OUTPUT)
    return params | {f"op_{vertex}": named.get(vertex, OPERATIONS[0]) for vertex in inner}


class NASBench101Cell(nn.Module):
    """A cell with the projections of its input; maps B x C x H x W to B x C' x H x W."""

    def __init__(self, edges: Edges, operations: dict[int, str], inputs: int, outputs: int) -> None:
        """Build the vertices on a path from vertex 0 to the output of `outputs` channels."""
        super().__init__()
        self.widths = vertex_widths(edges, outputs)
        self.sources = {
            vertex: [source for source in range(1, vertex) if (source, vertex) in edges]
            for vertex in sorted(self.widths)
        }
        self.operations = nn.ModuleDict(
            {
                str(vertex): _operation(operations[vertex], width)
                for vertex, width in self.widths.items()
                if vertex != _OUTPUT
            }
        )
        self.projections = nn.ModuleDict(
            {
                str(vertex): conv_bn_relu(inputs, width, 1)
                for vertex, width in self.widths.items()
                if (0, vertex) in edges
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        """Run the vertices in order."""
        values: dict[int, Tensor] = {}
        for vertex, sources in self.sources.items():
            terms = [values[source] for source in sources]
            if vertex == _OUTPUT:
                terms = [torch.cat(terms, 1)] if terms else []
            else:
                terms = [term[:, : self.widths[vertex]] for term in terms]
            if str(vertex) in self.projections:
                terms.append(self.projections[str(vertex)](x))
            total = reduce(torch.add, terms)
            values[vertex] = total if vertex == _OUTPUT else self.operations[str(vertex)](total)
        return values[_OUTPUT]


def vertex_widths(edges: Edges, outputs: int) -> dict[int, int]:
    """Return the channels of each vertex after the input, by the rule of the benchmark.

    The vertices before the output share its channels; the first vertices take one more if the
    division has a rest. Any other vertex is as wide as the widest vertex that reads it.
    """
    last = sorted(i for i, j in edges if j == _OUTPUT and i != 0)
    widths = {_OUTPUT: outputs}
    for place, vertex in enumerate(last):
        widths[vertex] = outputs // len(last) + (place < outputs % len(last))
    for vertex in sorted({i for i, _ in edges} - {0, *last}, reverse=True):
        widths[vertex] = max(widths[j] for i, j in edges if i == vertex)
    return dict(sorted(widths.items()))


def parameters(edges: Edges, operations: dict[int, str]) -> int:
    """Count the trainable parameters of a cell's network for 10 classes, without building it."""
    alive = _alive(edges)
    total = _weights(3, WIDTHS[0], 3) + WIDTHS[-1] * 10 + 10
    for inputs, outputs in pairwise((WIDTHS[0], *WIDTHS)):
        widths = vertex_widths(alive, outputs)
        for entering in (inputs, *[outputs] * (CELLS - 1)):
            total += sum(_weights(entering, w, 1) for v, w in widths.items() if (0, v) in alive)
        inner = ((operations[v], w) for v, w in widths.items() if v != _OUTPUT)
        sized = ((w, 3 if name == OPERATIONS[0] else 1) for name, w in inner if "conv" in name)
        total += CELLS * sum(_weights(w, w, size) for w, size in sized)
    return total


def _weights(inputs: int, outputs: int, size: int) -> int:
    """Count the parameters of a convolution and its batch norm."""
    return inputs * outputs * size**2 + 2 * outputs


def _numbered(
    matrix: Sequence[Sequence[int]], operations: Sequence[str], order: Sequence[int]
) -> tuple[Edges, dict[int, str]]:
    """Return the edges and operations after renumbering; the last vertex becomes the output."""
    place = {old: new for new, old in enumerate(order)} | {order[-1]: _OUTPUT}
    size = range(len(matrix))
    edges = frozenset((place[i], place[j]) for i in size for j in size if matrix[i][j])
    return edges, {place[old]: operations[old] for old in order[1:-1]}


def _upward(matrix: Sequence[Sequence[int]], order: Sequence[int]) -> bool:
    """Say whether every edge leads to a later vertex in an order."""
    size = range(len(matrix))
    return not any(matrix[order[i]][order[j]] for i in size for j in range(i + 1))


def _stack(edges: Edges, operations: dict[int, str], inputs: int, outputs: int) -> nn.Sequential:
    widths = (inputs, *[outputs] * (CELLS - 1))
    return nn.Sequential(*(NASBench101Cell(edges, operations, width, outputs) for width in widths))


def _operation(name: str, width: int) -> nn.Module:
    if name == "maxpool3x3":
        return nn.MaxPool2d(3, stride=1, padding=1)
    return conv_bn_relu(width, width, 3 if name == "conv3x3-bn-relu" else 1)


def _alive(edges: Edges) -> Edges:
    """Return the edges on a path from the input to the output."""
    ahead, back = {0}, {_OUTPUT}
    for i, j in sorted(edges):
        ahead |= {j} if i in ahead else set()
    for i, j in sorted(edges, key=lambda edge: -edge[1]):
        back |= {i} if j in back else set()
    found = frozenset(edge for edge in edges if set(edge) <= ahead & back)
    if not found:
        raise UserError("no path leads from the cell's input to its output")
    return found


def _pair(text: str) -> tuple[int, int]:
    source, _, target = text.partition("-")
    return int(source), int(target)


def _check(matrix: Sequence[Sequence[int]], operations: Sequence[str]) -> None:
    size = len(matrix)
    if not 2 <= size <= VERTICES or {len(row) for row in matrix} != {size}:
        raise UserError(f"a cell is a square matrix of 2 to {VERTICES} vertices")
    if any(matrix[i][j] for i in range(size) for j in range(i + 1)):
        raise UserError("a cell's edges lead to later vertices: its matrix is upper triangular")
    count = sum(bool(value) for row in matrix for value in row)
    if count > EDGES:
        raise UserError(f"a cell has at most {EDGES} edges, not {count}")
    inner = list(operations[1:-1])
    if len(operations) != size or (operations[0], operations[-1]) != ("input", "output"):
        raise UserError(f"a cell of {size} vertices has as many operations, input and output too")
    if bad := [name for name in inner if name not in OPERATIONS]:
        raise UserError(f"unknown operation {bad[0]!r}; known: {', '.join(OPERATIONS)}")

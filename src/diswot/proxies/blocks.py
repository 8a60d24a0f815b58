"""The primary blocks of a network, its layers, and its trainable weights.

AZ-NAS uses the outputs of a network's primary blocks, but no model says which modules these are.
Here they are the outermost modules with children that stand in a plain list (`Sequential`,
`ModuleList`, `ModuleDict`): residual blocks, cells, transformer blocks. A stage that itself holds a
list of two or more modules of one class is no block; the blocks are searched for inside it. A
network with fewer than two such blocks is a sequence of layers: its convolutions and linear layers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from torch import Tensor, nn

from diswot.errors import UserError
from diswot.observation.feature_maps import CONTAINERS, as_map
from diswot.utils.compat import ConvBase

_LAYERS = (nn.Linear, ConvBase)


def primary_blocks(model: nn.Module) -> list[nn.Module]:
    """Return the primary blocks of a network, or its layers if it has fewer than two blocks."""
    blocks = list(_listed(model))
    return blocks if len(blocks) > 1 else layers(model)


def layers(model: nn.Module) -> list[nn.Module]:
    """Return the convolutions and linear layers of a network in the order of registration."""
    return [module for module in model.modules() if isinstance(module, _LAYERS)]


def weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the trainable matrices and kernels of a network by name.

    These are the parameters whose name ends with `weight` and that have two dimensions or more.
    Biases, normalisation, position embeddings and tokens are not among them.

    Raises:
        UserError: The network has none.
    """
    found = {
        name: parameter
        for name, parameter in model.named_parameters()
        if name.endswith("weight") and parameter.ndim > 1 and parameter.requires_grad
    }
    if not found:
        raise UserError("the model has no trainable weights")
    return found


def map_of(output: object, images: Tensor) -> Tensor | None:
    """Lay out the output of a module, or the first of a tuple, as a map, B x C x H' x W'.

    None if the output is no map of the images, B x 3 x H x W.
    """
    if isinstance(output, tuple) and output:
        output = output[0]
    if not isinstance(output, Tensor) or output.ndim == 0 or len(output) != len(images):
        return None
    return as_map(output, (images.shape[2], images.shape[3]))


def _listed(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if isinstance(module, CONTAINERS) and _is_block(child):
            yield child
        else:
            yield from _listed(child)


def _is_block(module: nn.Module) -> bool:
    return _has_children(module) and not any(map(_repeats, module.modules()))


def _has_children(module: nn.Module) -> bool:
    return not isinstance(module, CONTAINERS) and any(True for _ in module.children())


def _repeats(module: nn.Module) -> bool:
    """Whether a module is a list that holds two modules with children of one class."""
    if not isinstance(module, CONTAINERS):
        return False
    kinds = Counter(type(child) for child in module.children() if _has_children(child))
    return any(count > 1 for count in kinds.values())

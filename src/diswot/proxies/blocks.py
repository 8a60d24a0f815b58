"""A network as a row of blocks, and what of it can be trained.

AZ-NAS looks at the outputs of a network's primary blocks. No model says which modules these are, so
here they are the outermost modules with parts that stand in a plain list (`Sequential`,
`ModuleList`): residual blocks, cells, transformer blocks. A stage that itself holds a list of two
or more modules of one class is no block but is looked into. A network without two such blocks is a
row of layers: its convolutions and linear layers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from torch import Tensor, nn

from diswot.errors import UserError
from diswot.observation.hooks import as_map

_LISTS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_LAYERS = (nn.Linear, nn.modules.conv._ConvNd)


def primary_blocks(model: nn.Module) -> list[nn.Module]:
    """The primary blocks of a network, or its layers if it has fewer than two of them."""
    blocks = list(_listed(model))
    return blocks if len(blocks) > 1 else layers(model)


def layers(model: nn.Module) -> list[nn.Module]:
    """Convolutions and linear layers, in the order in which they are registered."""
    return [module for module in model.modules() if isinstance(module, _LAYERS)]


def weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Trainable matrices and kernels, by name: parameters called weight, of two or more dimensions.

    Biases, normalisation, position embeddings and tokens are left out.

    Raises:
        UserError: There are none.
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
    """What a module returned as a map B x C x H x W of the images, or None when it is none."""
    if isinstance(output, tuple) and output:
        output = output[0]
    if not isinstance(output, Tensor) or output.ndim == 0 or len(output) != len(images):
        return None
    return as_map(output, (images.shape[2], images.shape[3]))


def _listed(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if isinstance(module, _LISTS) and _is_block(child):
            yield child
        else:
            yield from _listed(child)


def _is_block(module: nn.Module) -> bool:
    return _has_parts(module) and not any(map(_repeats, module.modules()))


def _has_parts(module: nn.Module) -> bool:
    return not isinstance(module, _LISTS) and any(True for _ in module.children())


def _repeats(module: nn.Module) -> bool:
    """Whether this is a list that holds two modules with parts of one class."""
    if not isinstance(module, _LISTS):
        return False
    kinds = Counter(type(child) for child in module.children() if _has_parts(child))
    return any(count > 1 for count in kinds.values())

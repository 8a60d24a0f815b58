"""The space of the sub-networks of a teacher: a depth and a width of each of its stages.

`subnet:TEACHER`, such as `subnet:resnet56` or `subnet:timm:vit_tiny_patch16_224`. The full
sub-network is the teacher. A stage is a run of blocks of one width and resolution. Its width is
that of the maps it writes and of everything inside its blocks, heads and MLPs of transformers
included. Layers before the first stage that no stage adds to, and layers after the last one, have
a width of their own. Other layers outside of stages keep their width.

Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
from optuna.trial import BaseTrial
from torch import nn

from diswot.models.registry import teacher_builder
from diswot.models.subnetwork_tracing import sub_networks
from diswot.models.subnetworks import SHARES, SubNetworks, cut
from diswot.models.weightless import Weightless
from diswot.spaces.trials import FixedParamsTrial


@dataclass(frozen=True)
class Teacher:
    """A function that builds a teacher, and the teacher's sub-networks."""

    build: Callable[[], nn.Module]
    parts: SubNetworks

    @cached_property
    def weightless(self) -> nn.Module:
        """The teacher on the meta device."""
        with Weightless():
            return self.build()


def check(teacher: str, num_classes: int, img_size: int) -> dict[str, str]:
    """Trace a teacher, unless this process has, and return its name.

    Raises:
        UserError: The name is unknown, or nothing can be removed from the teacher.
    """
    traced(teacher, num_classes, img_size)
    return {"teacher": teacher}


@cache
def traced(teacher: str, num_classes: int, img_size: int) -> Teacher:
    """Return a teacher by name with its sub-networks; each process traces it once.

    Raises:
        UserError: The name is unknown, or nothing can be removed from the teacher.
    """
    build = teacher_builder(teacher, num_classes, img_size)
    return Teacher(build, sub_networks(build, img_size, teacher))


def build(trial: BaseTrial, teacher: str, num_classes: int = 100, img_size: int = 32) -> nn.Module:
    """Build a sub-network: `depth_i` and `width_i` of each stage i from 1, and of its ends.

    The ends are `width_stem` and `width_head`, where these have channels of their own.

    A stage of one block has no `depth_i`, and one whose channels torch-pruning cannot remove has
    no `width_i`. The weights are those of a new teacher, at the kept channels. The teacher is a
    name, as `create_teacher` takes it.
    """
    made = traced(teacher, num_classes, img_size)
    on_meta = torch.get_default_device().type == "meta"
    model = _replica(made.weightless) if on_meta else made.build()
    return cut(made.parts, model, *_choices(trial, made.parts))


def _replica(model: nn.Module) -> nn.Module:
    """Return a copy of a network with the same tensors, in a tenth of the time of a new network.

    `cut` replaces tensors and changes none, so the network stays as it is.
    """
    replicas = {module: copy.copy(module) for module in model.modules()}
    named = dict(model.named_modules(remove_duplicate=False))
    for replica in replicas.values():
        own = {
            name: copy.copy(held) for name, held in vars(replica).items() if isinstance(held, dict)
        }
        vars(replica).update(own)
    for path, module in named.items():
        parent, _, name = path.rpartition(".")
        if path:
            replicas[named[parent]].register_module(name, replicas[module])
    return replicas[model]


def from_teacher(
    model: nn.Module, params: Mapping[str, Any], teacher: str, num_classes: int, img_size: int
) -> nn.Module:
    """Return the sub-network of some parameters with the weights of a teacher of that name.

    The model is that teacher, such as a trained one. It is not changed.
    """
    parts = traced(teacher, num_classes, img_size).parts
    return cut(parts, copy.deepcopy(model), *_choices(FixedParamsTrial(params), parts))


def _choices(trial: BaseTrial, parts: SubNetworks) -> tuple[list[int], list[float]]:
    depths, shares = [], []
    for stage in parts:
        depth, width = f"depth_{stage.name}", f"width_{stage.name}"
        depths.append(trial.suggest_int(depth, 1, stage.depth) if stage.depth > 1 else 1)
        shares.append(trial.suggest_categorical(width, SHARES) if stage.coupled else 1.0)
    return depths, shares

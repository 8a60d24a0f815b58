"""`--like NETWORK`: the costs of a network as the limits of a search."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diswot.cli import budgets, inputs
from diswot.cli.budgets import LIKE
from diswot.errors import UserError
from diswot.storage.run_files import LATENCIES
from diswot.utils.user_code import rooted

if TYPE_CHECKING:
    from torch import nn

    from diswot.cli.options import BudgetOptions
    from diswot.costs.budget import Budget
    from diswot.costs.latency import Setting
    from diswot.data.dataset import Dataset

_ALWAYS = ("params", "macs")  # costs of the network that are limits in any case


def copied(options: BudgetOptions, storage: str | None) -> tuple[str, ...]:
    """Return the costs of the network of --like that become limits, by key of `COSTS`."""
    from diswot.costs.budget import COSTS

    said = [name for name in COSTS if getattr(options, f"max_{name}") == LIKE]
    if options.like is None:
        if said:
            raise UserError(f"--max-{said[0]} like: name the network that is meant with --like")
        return ()
    if "latency" in said and storage is not None:
        raise UserError(
            "--max-latency like is measured anew by each process that shares a --storage; give the "
            "limit as a time, such as 8ms"
        )
    return tuple(name for name in COSTS if name in (*_ALWAYS, *said))


def measured(
    name: str | None,
    costs: tuple[str, ...],
    images: Dataset,
    space: str,
    timing: Setting | None,
    out: Path | None,
) -> dict[str, Any] | None:
    """Return the network of --like and its costs, for the run folder; None without a network.

    The network is a name, parameters of the space as JSON, or a run folder. The run folder `out`
    keeps the measured latency for a resumed search.
    """
    if name is None:
        return None
    try:
        build, student, space = network(name, space, images)
        measure = partial(_latency, student, space, images, timing, out)
        limits = _budget(build, images, costs, measure).limits
    except UserError as error:
        raise UserError(f"--like {name}: {error}") from error
    kept = inputs.absolute(name) if _is_run(name) else rooted(name)
    return {"network": kept, **limits}


def network(name: str, space: str, images: Dataset) -> tuple[Callable[[], nn.Module], Any, str]:
    """Return a function that builds the network of --like, its parameters or name, its space."""
    text, space = _student(name, space)
    return *inputs.named_student(text, space, images), space


def _is_run(name: str) -> bool:
    """Say whether a network is named by a run folder."""
    from diswot.models.registry import is_name

    return not (is_name(name) or inputs.is_architecture(name))


def _student(name: str, space: str) -> tuple[str, str]:
    """Return a network as a name or JSON, and the space of its parameters."""
    from diswot.runs.rebuild import recorded_student

    if not _is_run(name):
        return name, space
    if not Path(name).is_dir():
        inputs.network_name(name, "network")
    found = recorded_student(Path(name))
    if isinstance(found.student, str):
        return found.student, space
    return json.dumps(found.student), str(found.facts["space"])


def _budget(
    build: Callable[[], nn.Module],
    images: Dataset,
    costs: tuple[str, ...],
    latency: Callable[[], float],
) -> Budget:
    """Return the costs of a network that gives one logit a class."""
    import torch

    from diswot.costs.budget import Budget
    from diswot.models.initialization import fresh
    from diswot.training.evaluation import check_fit, frozen

    model = fresh(build, "default", 0)
    with frozen(model):
        check_fit("network", model, images, torch.device("cpu"))
    return Budget.like(model, images.image_shape, costs, latency)


def _latency(
    student: Any, space: str, images: Dataset, timing: Setting | None, out: Path | None
) -> float:
    """Measure the latency, or read what the run folder has of an earlier run."""
    assert timing is not None
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    return budgets.latency(student, space, images, timing, out and out / LATENCIES)


def tightened(limits: Budget, like: Mapping[str, Any] | None) -> Budget:
    """Return the limits with the costs of the network of --like where no lower one is set."""
    from diswot.costs.budget import show_costs

    if like is None:
        return limits
    costs = {name: cost for name, cost in like.items() if name != "network"}
    for name, limit in limits.limits.items():
        if limit > costs.get(name, limit):
            own = show_costs({name: costs[name]})
            raise UserError(
                f"--max-{name} is above the {own} of --like {like['network']}: give a lower limit, "
                "or leave it out"
            )
    return replace(limits, **{f"max_{name}": v for name, v in {**costs, **limits.limits}.items()})

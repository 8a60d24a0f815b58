"""Checks that a function of a trial is a space, on a few networks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch
from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.trial import BaseTrial
from torch import Tensor, nn

from diswot.errors import UserError, one_line
from diswot.models.initialization import fresh
from diswot.spaces.trials import EnumeratingTrial, FixedParamsTrial

Build = Callable[[BaseTrial], nn.Module]

TRIED = 3  # networks: of the first choices, of the last choices, and of random choices
FAILING = 20  # networks that may fail before the space fails
REBUILT = 2  # times that each network is built again


def check(build: Build) -> None:
    """Check a space on three networks, each built again twice with the same random numbers.

    Some networks of a space may fail to build: their evaluation reports it.

    Raises:
        UserError: The space returns no module or the same module twice; its choices are unbounded,
            not plain, or differ from call to call; or the same choices build different networks or
            weights.
        Exception: The exception of the space, if no network could be built.
    """
    known: dict[str, BaseDistribution] = {}
    failures: list[Exception] = []
    built = 0
    for path in _paths():
        try:
            models = [_build(build, path)]
        except Exception as error:  # a user's function may raise anything
            failures.append(error)
            models = []
        path.check()
        _check_alike(known, path.distributions)
        for model in models:
            _check_again(build, path, model)
        built += len(models)
        if built == TRIED:
            return
    if not built:
        raise failures[0]


def _paths() -> Iterator[EnumeratingTrial]:
    """Yield trials of the first choices, of the last choices, and of random choices."""
    random = np.random.default_rng(0)
    yield EnumeratingTrial()
    yield EnumeratingTrial(last=True)
    for _ in range(FAILING - 2):
        yield EnumeratingTrial(random=random)


def _build(build: Build, trial: BaseTrial) -> nn.Module:
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Choices for a categorical"
        )  # `EnumeratingTrial.check` raises instead
        return fresh(lambda: build(trial), "default", 0)


def _check_again(build: Build, path: EnumeratingTrial, model: nn.Module) -> None:
    """Build a network again from its parameters and compare the two."""
    if not isinstance(model, nn.Module):
        raise UserError(f"a space must return a torch module, not a {type(model).__name__}")
    for _ in range(REBUILT):
        trial = FixedParamsTrial(path.params)
        try:
            again = _build(build, trial)
        except Exception as error:
            reason = one_line(error)
            raise UserError(f"a space must give a network twice, but then: {reason}") from error
        if names := path.params.keys() ^ trial.distributions.keys():
            raise UserError(f"a space must ask the same when called again, unlike {min(names)!r}")
        _check_alike(dict(path.distributions), trial.distributions)
        _check_same(model, again)


def _check_alike(known: dict[str, BaseDistribution], asked: dict[str, BaseDistribution]) -> None:
    """Check that a name has the same choices in all networks; add new names to the known ones."""
    for name, distribution in asked.items():
        try:
            check_distribution_compatibility(known.setdefault(name, distribution), distribution)
        except ValueError as error:
            both = f"{known[name]} and {distribution}"
            raise UserError(
                f"choices of {name!r} must always be the same, not {both}; name each its own way"
            ) from error


def _check_same(model: nn.Module, again: nn.Module) -> None:
    """Check that two networks are equal and share no weights."""
    own = {id(parameter) for parameter in model.parameters()}
    if model is again or any(id(parameter) in own for parameter in again.parameters()):
        raise UserError("a space must build a new network at each call, sharing no weights")
    first, second = model.state_dict(), again.state_dict()
    what = next((n for n in first | second if _shape(first, n) != _shape(second, n)), None)
    if what is not None:
        shapes = f"{what} of {_shape(first, what)}, then {_shape(second, what)}"
        raise UserError(f"the same choices must give the same network; here {shapes}")
    if repr(model) != repr(again):
        raise UserError("the same choices must give the same network; here its layers differ")
    if (name := next((n for n in first if _differ(first[n], second[n])), None)) is not None:
        raise UserError(f"weights must be drawn by torch alone; {name} differs from call to call")


def _shape(state: dict[str, Tensor], name: str) -> str:
    return str(tuple(state[name].shape)) if name in state else "none"


def _differ(one: Tensor, other: Tensor) -> bool:
    return not torch.equal(one.nan_to_num(), other.nan_to_num())

"""Tiny search spaces, with students of `toys.LinearHead` on 3 x 8 x 8 images of five classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import optuna
import toys
from optuna.trial import BaseTrial
from torch import Tensor, nn

from diswot.data.dataset import Batch
from diswot.errors import UserError
from diswot.nas.aging_evolution import Digest, digest
from diswot.spaces.registry import Params, construct
from diswot.spaces.validation import Build

optuna.logging.set_verbosity(optuna.logging.WARNING)


def tiny(trial: BaseTrial) -> nn.Module:
    """36 networks."""
    width = trial.suggest_categorical("width", [2, 4, 8])
    kernel = trial.suggest_int("kernel", 1, 3, step=2)
    depth = trial.suggest_int("depth", 1, 3)
    active = {"relu": nn.ReLU, "tanh": nn.Tanh}[trial.suggest_categorical("act", ["relu", "tanh"])]
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 2, 1), active()]
    for _ in range(depth):
        layers += [nn.Conv2d(width, width, kernel, 1, kernel // 2), active()]
    return student(layers, width)


def branching(trial: BaseTrial) -> nn.Module:
    """2 + 4 + 8 networks: the number of choices depends on the first one."""
    layers, width = [], 3
    for i in range(trial.suggest_int("depth", 1, 3)):
        outputs = trial.suggest_categorical(f"width{i}", [2, 4])
        layers += [nn.Conv2d(width, outputs, 3, 1, 1), nn.ReLU()]
        width = outputs
    return student(layers, width)


def student(layers: list[nn.Module], width: int) -> nn.Module:
    """Six channels before the pooling, as the teacher has."""
    layers = [*layers, nn.Conv2d(width, 6, 1), nn.BatchNorm2d(6), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, toys.CLASSES))


def teacher() -> nn.Module:
    return toys.seeded(toys.LinearHead)


def batch(size: int = 6) -> Batch:
    return Batch(*toys.batch(size))


class Marked(nn.Module):
    """Costs next to nothing; `size` parameters and a mark for a proxy to read."""

    def __init__(self, mark: Any, size: int = 1) -> None:
        super().__init__()
        self.mark = mark
        self.fc = nn.Linear(size, toys.CLASSES, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(images.flatten(1)[:, : self.fc.in_features])


def letters(trial: BaseTrial, places: int = 8) -> nn.Module:
    """4^8 networks that differ in their marks alone."""
    chosen = [trial.suggest_categorical(f"place{i}", list("abcd")) for i in range(places)]
    return Marked("".join(chosen))


def counted(build: Build, log: Counter[Digest]) -> Build:
    """The same space; `log` counts the passes of more than one image through each architecture."""

    def space(trial: BaseTrial) -> nn.Module:
        model = build(trial)
        chosen = digest(trial.params)

        def count(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            log[chosen] += len(inputs[0]) > 1

        model.register_forward_pre_hook(count)
        return model

    return space


def samples(build: Build, count: int, seed: int = 0) -> list[tuple[Params, nn.Module]]:
    """Random choices, and the networks that came of them; at most half are refused."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    found: list[tuple[Params, nn.Module]] = []
    for _ in range(2 * count):
        trial = study.ask()
        with suppress(UserError):
            model = construct(build, trial)
            found.append((trial.params, model))
        if len(found) == count:
            return found
    raise AssertionError(f"{len(found)} of {2 * count} random choices are networks")


def suggestions(build: Callable[[BaseTrial], object], study: optuna.Study) -> dict[str, Any]:
    """Ask for one architecture; the trial stays open."""
    trial = study.ask()
    build(trial)
    return trial.params

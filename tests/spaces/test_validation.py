from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from commands import Run
from optuna.trial import BaseTrial
from torch import nn
from toyspaces import branching, tiny

from diswot.errors import UserError
from diswot.spaces.registry import create_space, enumerate_params
from diswot.spaces.validation import check


def head(width: int, *layers: nn.Module) -> nn.Module:
    pooled = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 2))
    return nn.Sequential(nn.Conv2d(3, width, 1), *layers, *pooled)


def nothing(trial: BaseTrial) -> None:
    trial.suggest_int("width", 1, 3)


def a_class(trial: BaseTrial) -> type[nn.Module]:
    return nn.ReLU


def endless(trial: BaseTrial) -> nn.Module:
    layers: list[nn.Module] = []
    while trial.suggest_categorical(f"more{len(layers)}", [True, False]):
        layers.append(nn.ReLU())
    return head(2, *layers)


def endless_at_last(trial: BaseTrial) -> nn.Module:
    count = itertools.count()
    while trial.suggest_categorical(f"more{next(count)}", [False, True]):
        pass
    return head(2)


def no_bounds(trial: BaseTrial) -> nn.Module:
    return head(2, nn.Dropout(trial.suggest_float("drop", 0, float("inf"))))


def objects(trial: BaseTrial) -> nn.Module:
    return head(2, trial.suggest_categorical("act", [nn.ReLU(), nn.GELU()]))


def random_width(trial: BaseTrial) -> nn.Module:
    trial.suggest_int("depth", 1, 3)
    return head(random.choice(range(2, 40)))


def random_layer(trial: BaseTrial) -> nn.Module:
    trial.suggest_int("depth", 1, 30)
    return head(2, random.choice([nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.ELU])())


CALLS = itertools.count()


def growing(trial: BaseTrial) -> nn.Module:
    return head(trial.suggest_int("width", 1, 9) + next(CALLS))


def weights_of_numpy(trial: BaseTrial) -> nn.Module:
    model = head(trial.suggest_int("width", 1, 9))
    with torch.no_grad():
        model[0].weight.copy_(torch.from_numpy(np.random.normal(size=model[0].weight.shape)))
    return model


def choices_change(trial: BaseTrial) -> nn.Module:
    return head(trial.suggest_categorical("width", [1000, 1 + next(CALLS)]))


def names_change(trial: BaseTrial) -> nn.Module:
    return head(trial.suggest_int(f"width{next(CALLS)}", 1, 9))


def choices_depend(trial: BaseTrial) -> nn.Module:
    depth = trial.suggest_int("depth", 1, 2)
    return head(trial.suggest_categorical("width", [4, 8] if depth == 1 else [4, 8, 16]))


SHARED = nn.Linear(2, 2)


def same_module(trial: BaseTrial) -> nn.Module:
    trial.suggest_int("width", 1, 2)
    return SHARED


def shared_weights(trial: BaseTrial) -> nn.Module:
    return head(2, *[nn.ReLU()] * trial.suggest_int("depth", 1, 2), nn.Flatten(), SHARED)


def fails(trial: BaseTrial) -> nn.Module:
    return head(trial.suggest_int("width", 1, 3) - 4)


def every_other_time(trial: BaseTrial) -> nn.Module:
    if next(CALLS) % 2:
        raise OSError("the file is gone")
    return head(trial.suggest_int("width", 1, 3))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (nothing, "a space must return a torch module, not a NoneType"),
        (a_class, "a space must return a torch module, not a type"),
        (endless, "more than 1000 choices for one network, such as 'more"),
        (endless_at_last, "more than 1000 choices for one network, such as 'more"),
        (no_bounds, "choices of 'drop' have no bounds"),
        (objects, "choices of 'act' must be numbers or strings, not ReLU"),
        (random_width, r"the same choices must give the same network; here 0\.weight of \("),
        (random_layer, "the same choices must give the same network; here its layers differ"),
        (growing, r"the same choices must give the same network; here 0\.weight of \("),
        (weights_of_numpy, r"weights must be drawn by torch alone; 0\.weight differs"),
        (choices_change, "choices of 'width' must always be the same, not "),
        (names_change, "a space must give a network twice, but then: UserError: parameter 'width"),
        (choices_depend, "choices of 'width' must always be the same, not "),
        (same_module, "a space must build a new network at each call"),
        (shared_weights, "a space must build a new network at each call"),
        (
            every_other_time,
            "a space must give a network twice, but then: OSError: the file is gone",
        ),
    ],
)
def test_wrong_spaces(build: Callable[[BaseTrial], nn.Module], message: str) -> None:
    global CALLS
    CALLS = itertools.count()
    with pytest.raises(UserError, match=message) as error:
        check(build)
    assert "\n" not in str(error.value) and len(str(error.value)) < 250


def test_what_a_space_raises_is_left_as_it_is() -> None:
    with pytest.raises(RuntimeError, match="negative dimension"):
        check(fails)


def partly(trial: BaseTrial) -> nn.Module:
    """Refuses most of its networks, the first and the last among them."""
    width = trial.suggest_int("width", 1, 20)
    if width not in range(8, 13):
        raise optuna.TrialPruned("not this one")
    return head(width)


def fixed(trial: BaseTrial) -> nn.Module:
    return head(3)


def continuous(trial: BaseTrial) -> nn.Module:
    return head(trial.suggest_int("width", 1, 1 + trial.suggest_int("more", 1, 4)), nn.Dropout())


def not_a_number(trial: BaseTrial) -> nn.Module:
    model = head(trial.suggest_int("width", 1, 3))
    model.register_buffer("unset", torch.full((2,), float("nan")))
    return model


@pytest.mark.parametrize("build", [tiny, branching, partly, fixed, continuous, not_a_number])
def test_right_spaces(build: Callable[[BaseTrial], nn.Module]) -> None:
    check(build)


def test_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    check(tiny)

    assert torch.equal(torch.get_rng_state(), before)


def test_counting_stops_at_endless_choices() -> None:
    for build in (endless, endless_at_last):
        with pytest.raises(UserError, match="more than 1000 choices"):
            enumerate_params(build, 5)


MINE = """
from torch import nn

def nothing(trial):
    trial.suggest_int("width", 1, 3)

def broken(trial, classes):
    return nn.Linear(trial.suggest_int("width", 1, 3), classes).weight.there_is_no_such_thing

def right(trial, classes):
    width = trial.suggest_int("width", 1, 3)
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(width, classes))
"""


@pytest.fixture
def mine(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(MINE)
    return str(tmp_path / "mine.py")


def test_a_users_file_is_checked(mine: str) -> None:
    with pytest.raises(UserError, match=r"mine.py:nothing is no space: a space must return a t"):
        create_space(f"{mine}:nothing")
    with pytest.raises(UserError, match=r"is no space: AttributeError: .* \(line 8\)"):
        create_space(f"{mine}:broken")
    create_space(f"{mine}:right")


def test_by_command(mine: str, run: Run) -> None:
    line = "search --teacher resnet20 --data noise --classes 5 --image-size 8 --batch-size 4 --json"

    assert "is no space: a space must return" in run(f"{line} --space {mine}:nothing").mistake()
    assert run(f"{line} --space {mine}:right --proxy relation").json["scored"] == 3

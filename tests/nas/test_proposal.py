from __future__ import annotations

import logging

import optuna
import pytest
import torch
from optuna.trial import BaseTrial, FixedTrial
from torch import nn

from diswot.errors import UserError
from diswot.nas.proposal import Proposer, ask

optuna.logging.set_verbosity(optuna.logging.WARNING)


def sized(trial: BaseTrial) -> nn.Module:
    return nn.Linear(trial.suggest_int("inputs", 1, 10**9), 5, bias=False)


def test_parameters_are_decided_and_counted_without_weights() -> None:
    """Five thousand million weights, which no memory here holds."""
    assert Proposer(sized)(FixedTrial({"inputs": 10**9})) == 5 * 10**9


def test_a_trial_of_a_study_is_asked_once() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trial = study.ask()

    weights = Proposer(sized)(trial)

    assert trial.params == study.trials[0].params
    assert weights == 5 * trial.params["inputs"]


class Failing(optuna.samplers.RandomSampler):
    """Fails where it proposes values together, as samplers do that lack a library."""

    def sample_relative(self, *_: object) -> dict[str, object]:
        raise ModuleNotFoundError("No module named 'cmaes'")


def test_an_error_of_the_sampler_is_named_as_its_own() -> None:
    study = optuna.create_study(sampler=Failing())
    with pytest.raises(UserError, match="the sampler fails: ModuleNotFoundError: No module named"):
        ask(study)


def stubborn(trial: BaseTrial) -> nn.Module:
    """Looks at its weights, which the meta device does not have."""
    model = nn.Linear(trial.suggest_int("inputs", 1, 9), 5)
    assert model.weight.sum().item() != 0
    return model


def test_a_space_that_needs_weights_is_built_with_them(caplog: pytest.LogCaptureFixture) -> None:
    propose = Proposer(stubborn)
    with caplog.at_level(logging.WARNING, "diswot"):
        found = [propose(FixedTrial({"inputs": n})) for n in (2, 3)]

    assert found == [15, 20]
    (record,) = caplog.records
    assert "cannot be built on the meta device (RuntimeError: Tensor.item()" in record.message
    assert record.message.endswith(" ms")


def test_error_of_the_space_is_its_own() -> None:
    def failing(trial: BaseTrial) -> nn.Module:
        raise ValueError("too deep")

    propose = Proposer(failing)
    for _ in range(2):
        with pytest.raises(ValueError, match="too deep"):
            propose(FixedTrial({}))
    with pytest.raises(UserError, match="must return a torch module, not a int"):
        Proposer(lambda trial: 3)(FixedTrial({}))  # type: ignore[arg-type,return-value]


def test_default_device_is_as_before() -> None:
    Proposer(sized)(FixedTrial({"inputs": 2}))

    assert torch.get_default_device().type == "cpu"

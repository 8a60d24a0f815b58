"""Detectors of a space: what holds of every space, and the choices of pyramid and heads."""

from __future__ import annotations

from functools import partial

import optuna
import pytest
import torch
from searching import search
from toyspaces import samples

from diswot.costs.budget import Budget
from diswot.costs.counts import count, count_params
from diswot.data.dataset import Batch
from diswot.errors import UserError
from diswot.models.detectors import HEADS
from diswot.models.initialization import fresh
from diswot.nas.proposal import Proposer
from diswot.spaces import registry as spaces
from diswot.spaces.registry import Params, build_network, create_space

CLASSES = 3
NAMES = [*(f"detector:s0+{heads}" for heads in HEADS), "detector:mobilenet+fcos"]
SMALL: Params = {
    "blocks1": 1, "blocks2": 1, "blocks3": 1,
    "pyramid_width": 64, "head_width": 32, "head_depth": 2,
}  # fmt: skip
BOXES = {"boxes": torch.tensor([[4.0, 6.0, 40.0, 50.0]]), "labels": torch.tensor([3])}


def proposed(name: str, seed: int = 0) -> tuple[Params, int]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
    trial = study.ask()
    model_params = Proposer(create_space(name, CLASSES, 64))(trial)
    return trial.params, model_params


@pytest.mark.parametrize("name", NAMES)
def test_networks_are_proposed_without_weights_and_find_boxes(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    params, model_params = proposed(name)
    assert not caplog.messages
    model = build_network(create_space(name, CLASSES, 64), params)
    assert count_params(model) == model_params
    losses = model([torch.randn(3, 64, 80)] * 2, [BOXES, BOXES])
    sum(losses.values()).backward()
    unused = {n for n, p in model.named_parameters() if p.grad is None}
    assert not unused
    found = model.eval()(torch.randn(2, 3, 64, 80))
    assert [set(each) for each in found] == [{"boxes", "labels", "scores"}] * 2


def test_the_check_of_a_users_space() -> None:
    spaces.check(create_space("detector:s0+fcos", CLASSES, 64))


@pytest.mark.parametrize("heads", HEADS)
def test_the_heads_by_hand(heads: str) -> None:
    """Both branches have two 3x3 convolutions with 32 group norms; then come the outputs.

    The biases of RetinaNet's convolutions are left out, since norms follow.
    """
    model = build_network(create_space(f"detector:s0+{heads}", CLASSES, 64), SMALL)
    anchors, bias, each = (1, 32, 4 + 1) if heads == "fcos" else (9, 0, 4)
    branch = 9 * 64 * 32 + 9 * 32 * 32 + 2 * (bias + 2 * 32)
    outputs = anchors * (CLASSES + 1 + each)
    assert count_params(model.get_submodule("head")) == 2 * branch + outputs * (9 * 32 + 1)


def test_the_pyramid_by_hand() -> None:
    """The last map of S0 has 64 channels and the stride 4; strides of 8 and 16 follow."""
    model = build_network(create_space("detector:s0+fcos", CLASSES, 96), SMALL)
    levels = model.eval().get_submodule("backbone")(torch.zeros(1, 3, 96, 96))
    assert [each.shape[1:] for each in levels.values()] == [(64, 24, 24), (64, 12, 12), (64, 6, 6)]
    fpn = model.get_submodule("backbone.fpn")
    assert count_params(fpn) == 64 * 64 + 64 + 3 * (9 * 64 * 64 + 64)
    plain = {name: value for name, value in SMALL.items() if name.startswith("blocks")}
    classifier = 64 * CLASSES + CLASSES
    network = build_network(create_space("s0", CLASSES, 96), plain)
    body = model.get_submodule("backbone.body")
    assert count_params(body) == count_params(network) - classifier


def test_same_choices_same_weights() -> None:
    build = partial(build_network, create_space("detector:s0+retinanet", CLASSES, 64), SMALL)
    states = [fresh(build, "default", 7).state_dict() for _ in "ab"]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0] | states[1])


def test_a_search_keeps_the_budget_of_multiply_adds() -> None:
    """Counted at the size of the images, which are not square."""
    space = create_space("detector:s0+fcos", CLASSES, 32)
    targets = torch.tensor([2.0, 2.0, 20.0, 24.0, 1.0, 0.0]).expand(2, 1, 6).clone()
    batch = Batch(torch.randn(2, 3, 32, 64), targets)
    with torch.random.fork_rng(devices=[]):
        sizes = sorted(count(model, (3, 32, 64)).macs for _, model in samples(space, 4, seed=5))
    found = search(
        None, space, batch, trials=3, proxy="params", budget=Budget(max_macs=sizes[2]), seed=1
    )
    model = build_network(space, found.best.params)
    assert 0 < count(model, (3, 32, 64)).macs <= sizes[2]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("detector", "detector needs a parts, such as detector:mobilenet"),
        ("detector:mobilenet", "has no plus; such as detector:mobilenet"),
        ("detector:mobilenet+lraspp", "unknown detector 'lraspp'; known: fcos, retinanet"),
        ("detector:nothing+fcos", "unknown space 'nothing'"),
    ],
)
def test_wrong_names(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        create_space(name)

"""Networks as Python source: run here without diswot, they compute the same."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import optuna
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from toys import LinearHead, batch, seeded

from diswot.errors import UserError
from diswot.exporters.python_source import source
from diswot.observation.rows import logits_of
from diswot.spaces import registry as spaces
from diswot.spaces.registry import construct, create_space

optuna.logging.set_verbosity(optuna.logging.WARNING)
SPACES = [
    row.example or name
    for name, row in spaces.SPACES.items()
    if name not in ("timm_zoo", "smp_zoo", "detector")  # of which some or all cannot be written so
]


def candidate(name: str, size: int, seed: int = 0, classes: int = 5) -> nn.Module:
    """A random network of a space, with batch statistics that are not those of the start."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    build = create_space(name, classes, size)
    while True:
        try:
            model = seeded(lambda: construct(build, study.ask()), seed)
        except UserError:  # a cell without a path
            continue
        model.train()(torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(1)))
        return model.eval()


def again(model: nn.Module) -> nn.Module:
    """The network made of its source, in a namespace of torch alone."""
    text, state = source(model)
    space: dict[str, Any] = {"torch": torch, "nn": nn}
    exec(compile(text, "student.py", "exec"), space)
    made: nn.Module = space["Student"]()
    made.load_state_dict(state)
    return made.eval()


@pytest.mark.parametrize("name", SPACES)
def test_the_same_logits_in_every_space(name: str) -> None:
    model = candidate(name, 32)
    made = again(model)
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        for count in (1, 3):
            expected, found = (logits_of(each(images[:count])) for each in (model, made))
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
            assert expected.std() > 0


def test_every_weight_is_there_once() -> None:
    model = candidate("s0", 16)
    text, state = source(model)
    assert sorted(v.shape for v in state.values()) == sorted(
        v.shape for v in model.state_dict().values()
    )
    assert "diswot" not in text and "import" not in text
    assert text.count("nn.Conv2d(") == sum(isinstance(m, nn.Conv2d) for m in model.modules())


def test_the_network_stays_as_it_is() -> None:
    model = seeded(LinearHead).eval()
    before = copy.deepcopy(model.state_dict())
    source(model)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())


class Pool(nn.Module):
    """Average pooling that does not count what is outside, which its own text leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        self.scale = nn.Parameter(torch.tensor([2.0]))
        self.register_buffer("shift", torch.tensor([[0.5]]), persistent=False)
        self.fc = nn.Linear(3, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.pool(images)[:, :, 0, 0] * self.scale + self.shift)


def test_what_a_layer_does_not_tell_and_tensors_of_its_own() -> None:
    model = seeded(Pool).eval()
    images, _ = batch()
    torch.testing.assert_close(again(model)(images), model(images))


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_modes(mode: str) -> None:
    body = nn.Conv2d(3, 4, 3, padding=1, padding_mode=mode), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    model = seeded(lambda: nn.Sequential(*body, nn.Linear(4, 5))).eval()
    images, _ = batch()
    assert torch.equal(again(model)(images), model(images))


def parametrized() -> nn.Module:
    return nn.Sequential(weight_norm(nn.Conv2d(3, 4, 8)), nn.Flatten())


class Branching(nn.Module):
    """What it does depends on what it sees."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)) if images.sum() > 0 else images.amax((2, 3))


class Foreign(nn.Module):
    """Calls what is not torch's."""

    def forward(self, images: Tensor) -> Tensor:
        return foreign(images).mean((2, 3))


@torch.fx.wrap
def foreign(images: Tensor) -> Tensor:
    return images


class Attending(nn.Module):
    """A layer of torch's that its own text does not make again."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.attention(images, images, images)[0]


@pytest.mark.parametrize(
    ("build", "reason"),
    [(Branching, "cannot be written as source"), (Foreign, "foreign, which is not torch's"),
     (parametrized, "with a parametrization, such as weight norm, which cannot be written"),
     (Attending, "MultiheadAttention, which cannot be written as source")],
)  # fmt: skip
def test_what_cannot_be_written_is_told(build: Callable[[], nn.Module], reason: str) -> None:
    with pytest.raises(UserError, match=re.escape(reason)) as caught:
        source(build().eval())
    assert "use --format onnx or torch" in str(caught.value)


class Meeting(nn.Module):
    """Two layers that have one name when dots become underscores."""

    def __init__(self) -> None:
        super().__init__()
        self.a_b, self.a = nn.Linear(3, 3), nn.Sequential()
        self.a.add_module("b", nn.Linear(3, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.a.b(self.a_b(x))


def test_names_that_would_meet() -> None:
    with pytest.raises(UserError, match="would be named a_b"):
        source(Meeting())

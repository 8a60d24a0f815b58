"""Students are checked like a teacher is."""

from __future__ import annotations

import pytest
import torch
from optuna.trial import BaseTrial
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

import diswot
from diswot.data.dataset import Batch
from diswot.errors import SearchFailed, UserError
from diswot.nas.evaluator import Scoring
from diswot.observation.observe import NoClassifier, observe
from diswot.proxies.checks import check_outputs
from diswot.spaces.validation import Build

DATA = diswot.create_dataset("noise", num_classes=5, img_size=8)


class Cosine(nn.Module):
    """A classifier by the angle to the mean of each class."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.register_parameter(name, nn.Parameter(torch.randn(5, 8)))

    def forward(self, features: Tensor) -> Tensor:
        return 10 * linear(normalize(features), normalize(self.get_parameter(self.name)))


def net(head: nn.Module) -> nn.Module:
    body = nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*body, head)


def space(outputs: int) -> Build:
    def build(trial: BaseTrial) -> nn.Module:
        trial.suggest_categorical("choice", [0, 1])
        return net(nn.Linear(8, outputs))

    return build


@pytest.mark.parametrize("proxy", ["relation", "params", "snip"])
@pytest.mark.parametrize("outputs", [4, 6, 1000])
def test_a_student_with_other_outputs_than_classes_fails(proxy: str, outputs: int) -> None:
    teacher = net(nn.Linear(8, 5))
    said = f"the student has {outputs} outputs, and the data has 5 classes|does not fit a model"

    with pytest.raises(SearchFailed, match=f"2 failed, such as: .*({said})"):
        diswot.search(teacher, space(outputs), DATA, n_trials=2, scoring=proxy)
    with pytest.raises(SearchFailed, match=said):
        how = Scoring(proxy, num_classes=5)
        diswot.search(teacher, space(outputs), DATA.batch(5), n_trials=2, scoring=how)


@pytest.mark.parametrize("proxy", ["naswot", "params"])
def test_a_single_student_is_checked_against_the_data(proxy: str) -> None:
    with pytest.raises(UserError, match="the student has 6 outputs, and the data has 5 classes"):
        diswot.score(None, net(nn.Linear(8, 6)), DATA, proxy)


def test_a_student_with_the_right_outputs_is_scored() -> None:
    found = diswot.search(None, space(5), DATA, n_trials=2, scoring="params")

    assert (found.scored, found.best.score) == (2, 3 * 8 * 9 + 8 + 8 * 5 + 5)
    check_outputs(torch.zeros(2, 5), 5)
    check_outputs("anything", None)
    with pytest.raises(UserError, match=r"must return logits: .* not a tuple"):
        check_outputs((torch.zeros(2, 5),), 5)


def test_a_cosine_head_is_a_classifier() -> None:
    images, labels = DATA.batch(10)
    model = net(Cosine("weight"))

    seen = observe(model, images, labels)

    loss = nn.functional.cross_entropy(model(images), labels)
    expected = torch.autograd.grad(loss, model[-1].weight)[0]
    torch.testing.assert_close(seen.class_gradient, expected)


def test_a_head_without_a_weight_is_refused_with_what_can_be_done() -> None:
    batch = DATA.batch(10)
    model = net(Cosine("means"))

    with pytest.raises(NoClassifier, match=r"no layer has a weight of 5 outputs; name it: model"):
        observe(model, *batch)
    said = "'classifier': NAME}; scores without a forward pass need none: params"
    with pytest.raises(UserError, match=f"the teacher: .*{said}"):
        diswot.search(model, space(5), DATA, n_trials=1, scoring="relation")
    with pytest.raises(SearchFailed, match=said):
        diswot.search(
            net(nn.Linear(8, 5)), lambda trial: net(Cosine("means")), DATA, n_trials=1,
            scoring="relation",
        )  # fmt: skip
    assert diswot.score(None, model, batch, "params") == {"params": 3 * 8 * 9 + 8 + 5 * 8}


class Forward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = net(nn.Linear(8, 5))

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        return self.inner(images)


def test_a_forward_pass_in_inference_mode_is_named() -> None:
    with pytest.raises(UserError, match=r"forward runs in torch\.inference_mode"):
        observe(Forward(), *DATA.batch(5))


class WithoutGradient(Forward):
    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        return self.inner(images)


@pytest.mark.parametrize("proxy", ["snip", "grasp", "jacov", "zico"])
def test_a_forward_pass_without_gradients_is_named(proxy: str) -> None:
    said = r"the outputs have no gradient, as under torch\.no_grad or after detach"
    with pytest.raises(UserError, match=said):
        diswot.score(None, WithoutGradient(), DATA.batch(10), proxy)


def test_scores_without_gradients_take_a_forward_pass_without_gradients() -> None:
    names, model = ["naswot", "capacity"], WithoutGradient()
    batch = DATA.batch(10)
    assert diswot.score(None, model, batch, names) == diswot.score(None, model.inner, batch, names)


@pytest.mark.parametrize(
    ("teacher", "student", "batch", "said"),
    [
        ("resnet20", net(nn.Identity()), DATA.batch(5), "the teacher must be a network, not a str"),
        (None, "resnet20", DATA.batch(5), "the student must be a network, not a str"),
        (None, net(nn.Identity()), 5, "the images must be a batch"),
    ],
)
def test_names_in_place_of_networks(
    teacher: object, student: object, batch: object, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        diswot.score(teacher, student, batch, "params")  # type: ignore[arg-type]


def test_a_batch_and_data_are_shown_in_one_line() -> None:
    shown = "Batch(images=float32 tensor (5, 3, 8, 8), labels=int64 tensor (5,))"

    assert repr(DATA.batch(5)) == shown
    assert repr(DATA) == "Dataset('noise', 5 classes, 8 x 8 pixels)"
    digits = "Dataset('digits', 10 classes, 32 x 32 pixels, 1437 training images, 360 test images)"
    assert repr(diswot.create_dataset("digits")) == digits
    assert repr(Batch(None, None)) == "Batch(images=None, labels=None)"  # type: ignore[arg-type]

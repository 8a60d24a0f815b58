"""Networks held still, checked and measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from scipy.stats import binomtest
from tiny_training import measure_result
from torch import Tensor, nn
from toys import CLASSES, FlattenedGrid, LinearHead, Noisy, Returning, seeded

from diswot.data.dataset import Dataset, Split
from diswot.data.loader import InMemoryImages
from diswot.data.registry import create_dataset
from diswot.errors import UserError
from diswot.training.evaluation import (
    accuracy_interval,
    check_fit,
    check_gradient,
    count_all,
    frozen,
    overlap,
    sum_counts,
)

CPU = torch.device("cpu")


def noise(classes: int = CLASSES) -> Dataset:
    return create_dataset("noise", num_classes=classes, img_size=8)


def made(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(count)
    images = torch.randint(0, 256, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
    return images, torch.randint(CLASSES, (count,), generator=generator)


class TestAccuracy:
    @pytest.mark.parametrize("count", [1, 101, 501])
    def test_naive(self, count: int) -> None:
        images, labels = made(count)
        model = seeded(LinearHead).eval()
        right = 0
        with torch.no_grad():
            for image, label in zip(images, labels, strict=True):
                logits = model(noise().normalise(image[None]))[0].tolist()
                right += logits.index(max(logits)) == int(label)
        held, every = InMemoryImages(images, labels), torch.arange(count)
        assert sum_counts(model, noise(), held, every).tolist() == [right, len(every)]
        split = Split(labels, lambda indices: images[torch.as_tensor(indices)])
        done: list[int] = []
        data = replace(noise(), test=split)
        assert count_all(model, data, done.append).tolist() == [right, count]
        assert measure_result(model, data) == pytest.approx(100 * right / count)
        assert done[-1] == count and len(done) == -(-count // 100)

    def test_some_of_the_images(self) -> None:
        images, labels = made(50)
        some = torch.tensor([4, 7, 40])
        model, held = seeded(LinearHead), InMemoryImages(images, labels)
        alone = InMemoryImages(images[some], labels[some])
        expected = sum_counts(model, noise(), alone, torch.arange(3))
        assert torch.equal(sum_counts(model, noise(), held, some), expected)

    @pytest.mark.parametrize("training", [True, False])
    def test_leaves_mode_and_statistics(self, training: bool) -> None:
        model = seeded(Noisy).train(training)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        sum_counts(model, noise(), InMemoryImages(*made(4)), torch.arange(4))
        assert model.training is training
        for name, value in model.state_dict().items():
            assert torch.equal(value, before[name])

    def test_bf16(self) -> None:
        model = seeded(LinearHead)
        seen: list[torch.dtype] = []
        model.fc.register_forward_hook(lambda *call: seen.append(call[2].dtype))
        for bf16 in (True, False):
            sum_counts(model, noise(), InMemoryImages(*made(4)), torch.arange(4), bf16)
        assert seen == [torch.bfloat16, torch.float32]


class TestFrozen:
    @pytest.mark.parametrize("fails", [False, True])
    def test_each_module_and_weight_is_as_before(self, fails: bool) -> None:
        model = seeded(LinearHead)
        model.block1.eval()
        model.fc.bias.requires_grad_(False)
        modes = [module.training for module in model.modules()]
        needs = [weight.requires_grad for weight in model.parameters()]
        try:
            with frozen(model):
                assert not any(module.training for module in model.modules())
                assert not any(weight.requires_grad for weight in model.parameters())
                if fails:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            assert fails
        assert [module.training for module in model.modules()] == modes
        assert [weight.requires_grad for weight in model.parameters()] == needs

    def test_no_model(self) -> None:
        with frozen(None):
            assert True


class TestFit:
    def test_fits_and_leaves_no_trace(self) -> None:
        model = seeded(Noisy).eval()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        check_fit("student", model, noise(), CPU)
        assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())

    def test_wrong_number_of_classes(self) -> None:
        message = "the teacher gives logits for 5 classes, and noise has 7"
        with pytest.raises(UserError, match=message):
            check_fit("teacher", seeded(LinearHead).eval(), noise(7), CPU)

    def test_wrong_image_shape(self) -> None:
        wide = create_dataset("noise", num_classes=CLASSES, img_size=16)
        with pytest.raises(UserError) as caught:
            check_fit("student", seeded(FlattenedGrid).eval(), wide, CPU)
        assert str(caught.value).startswith("the student cannot take images of shape (3, 16, 16): ")
        assert "\n" not in str(caught.value)

    def test_no_tensor(self) -> None:
        model = Returning(lambda logits: {"out": logits}).eval()
        with pytest.raises(UserError, match="the student gives dict"):
            check_fit("student", model, noise(), CPU)

    @pytest.mark.parametrize(
        ("made", "said"),
        [
            (lambda logits: logits / 0, "the student gives logits that are not finite"),
            (
                lambda logits: logits.softmax(1),
                "the student gives probabilities",
            ),
        ],
    )
    def test_no_logits(self, made: Any, said: str) -> None:
        with pytest.raises(UserError, match=said):
            check_fit("student", Returning(made).eval(), noise(), CPU)
        check_fit("student", Returning(lambda logits: logits.log_softmax(1)).eval(), noise(), CPU)

    def test_a_map(self) -> None:
        with pytest.raises(UserError, match=r"the student gives \(2, 5, 8, 8\)"):
            check_fit("student", nn.Conv2d(3, 5, 1), noise(), CPU)


class Detached(LinearHead):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).detach()


class NoBackward(LinearHead):
    def forward(self, images: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            raise NotImplementedError("no backward pass\nhere")
        return super().forward(images)


class TestGradient:
    def test_a_network_that_can_be_trained(self) -> None:
        model = seeded(LinearHead).eval()
        check_gradient(model, noise(), CPU)
        assert all(weight.grad is None for weight in model.parameters())

    def test_outputs_without_a_gradient(self) -> None:
        with pytest.raises(UserError, match="its outputs have no gradient, as under"):
            check_gradient(seeded(Detached).eval(), noise(), CPU)

    def test_an_error_is_one_line(self) -> None:
        with pytest.raises(UserError, match=r"cannot be trained here: no backward pass here$"):
            check_gradient(seeded(NoBackward).eval(), noise(), CPU)

    def test_frozen_weights_are_for_the_optimizer_to_refuse(self) -> None:
        check_gradient(seeded(Detached).requires_grad_(False), noise(), CPU)


@pytest.mark.parametrize(("right", "images"), [(0, 5), (1, 1), (50, 66), (288, 288), (4150, 5000)])
def test_the_interval_of_an_accuracy(right: int, images: int) -> None:
    wilson = binomtest(right, images).proportion_ci(0.95, method="wilson")

    low, high = accuracy_interval(100 * right / images, images)

    assert (low, high) == pytest.approx((100 * wilson.low, 100 * wilson.high), abs=1e-4)


def test_an_interval_by_hand() -> None:
    """Five of ten: (0.5 +- 1.96 sqrt(0.025 + 0.0096)) / 1.384 around the half."""
    assert accuracy_interval(50, 10) == pytest.approx((23.66, 76.34), abs=0.01)


@pytest.mark.parametrize(
    ("first", "second", "result"),
    [
        ((1, 3), (2, 4), True),
        ((1, 2), (2, 4), True),
        ((1, 9), (3, 4), True),
        ((1, 2), (3, 4), False),
    ],
)
def test_overlap(first: tuple[float, float], second: tuple[float, float], result: bool) -> None:
    assert overlap(first, second) == result == overlap(second, first)
    assert not overlap(None, second) and not overlap(first, None)

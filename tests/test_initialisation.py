"""What docs/initialisation.md says of scores with random weights, each statement checked."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import permutations
from statistics import fmean, stdev
from typing import Any

import pytest
import torch
from scipy import integrate, stats
from tiny_training import LONG, digits

from diswot.knowledge.relation import relation
from diswot.knowledge.semantic import semantic
from diswot.models.cifar_resnet import CifarResNet
from diswot.models.inheritance import inherit
from diswot.models.initialization import TEACHER, fresh
from diswot.observation.functional import rank_one_distance
from diswot.observation.observe import Observation, observe
from diswot.training.distill import distill


@pytest.fixture
def wide(imported: Callable[[str], Any]) -> Any:
    return imported("initialisation")


# The kernel of a wide network


def test_kernel_of_a_relu_is_the_mean_over_normal_numbers(wide: Any) -> None:
    """E relu(u) relu(v) by integration over u, and in closed form over v given u."""
    for a, b, cov in ((1.0, 1.0, 0.3), (2.0, 0.5, -0.6), (1.5, 3.0, 2.0)):

        def integrand(u: float, a: float = a, b: float = b, cov: float = cov) -> float:
            mean, deviation = cov / a * u, math.sqrt(b - cov**2 / a)
            z = mean / deviation
            given = mean * stats.norm.cdf(z) + deviation * stats.norm.pdf(z)
            return float(u * given * stats.norm.pdf(u, scale=math.sqrt(a)))

        expected = integrate.quad(integrand, 0, 20)[0]
        kernel = torch.tensor([[a, cov], [cov, b]], dtype=torch.float64).view(2, 2, 1, 1)
        assert float(wide.rectified(kernel)[0, 1]) == pytest.approx(expected, abs=1e-7)
        assert float(wide.rectified(kernel)[0, 0]) == pytest.approx(a / 2)


def test_one_layer_has_its_kernel_in_the_mean(wide: Any) -> None:
    """Many networks of one layer are one of many channels, whose mean is the kernel."""
    x = wide.smooth_images(4)
    out = wide.Chain(20_000, 1, False, 0)(x).double()
    found = torch.einsum("ichw,jchw->ijhw", out, out) / out.shape[1]
    kernel = wide.chain_kernel(x, 1)
    assert float((found - kernel).abs().max()) < 0.05 * float(kernel.abs().max())


@pytest.mark.parametrize("shortcuts", [False, True])
def test_relations_of_wide_networks_are_those_of_the_kernel(wide: Any, shortcuts: bool) -> None:
    """The error falls with the root of the width: 2.8 times for 8 times as many channels."""
    x, layers = wide.smooth_images(), 4
    kernel = wide.KERNELS["shortcuts" if shortcuts else "chain"](x, layers)
    matrix = wide.kernel_relation(kernel)
    errors = {
        width: fmean(
            float(
                (wide.measured(x, width, layers, shortcuts, seed) - matrix).square().mean().sqrt()
            )
            for seed in range(6)
        )
        for width in (16, 128)
    }
    assert 1.8 < errors[16] / errors[128] < 4.5
    assert errors[128] < 0.15 * float(matrix.square().mean().sqrt())


def test_a_chain_forgets_the_images_as_the_square_of_its_depth(wide: Any) -> None:
    """1 - cos tends to 9 pi^2 / 2 L^2; a shortcut around each layer makes it four times that."""
    chain = residual = torch.zeros((), dtype=torch.float64)
    for _ in range(4000):
        chain = wide.next_cosine(chain)
        residual = (residual + wide.next_cosine(residual)) / 2
    scale = 4000**2 / math.pi**2
    assert float(1 - chain) * scale == pytest.approx(9 / 2, rel=0.02)
    assert float(1 - residual) * scale == pytest.approx(18, rel=0.02)


# Relation


def test_relation_is_lowest_at_the_depth_of_the_teacher(wide: Any) -> None:
    x = wide.smooth_images()
    for name in ("chain", "shortcuts"):
        kernel = wide.KERNELS[name]
        found = {depth: wide.limit(kernel(x, 8), kernel(x, depth)) for depth in (2, 4, 8, 16, 32)}
        assert found[8] == 0
        assert found[2] > found[4] > 0 < found[16] < found[32]
        assert found[4] > 2 * found[16]  # half the depth costs more than twice the depth


def test_two_layers_with_shortcuts_are_about_one_without(wide: Any) -> None:
    """Twice as many in the limit of many layers; 18 instead of 16 for 8."""
    x = wide.smooth_images(8)
    teacher = wide.chain_kernel(x, 8)
    found = {depth: wide.limit(teacher, wide.residual_kernel(x, depth)) for depth in range(8, 25)}
    assert min(found, key=found.__getitem__) in range(15, 20)
    assert found[16] < found[8] / 50


def test_a_nonlinearity_matters_more_than_any_depth(wide: Any) -> None:
    x = wide.smooth_images()
    teacher = wide.chain_kernel(x, 8)
    depths = [wide.limit(teacher, wide.chain_kernel(x, depth)) for depth in (2, 4, 16, 32)]
    linear = [wide.limit(teacher, wide.linear_kernel(x, depth)) for depth in (2, 4, 16, 32)]
    assert min(linear) > 10 * max(depths)
    assert max(linear) < 1.1 * min(linear)


def test_at_few_channels_chance_is_larger_than_depth(wide: Any) -> None:
    """Two draws of one network of 16 channels differ by more than 4 layers from 8 in the limit."""
    x = wide.smooth_images()

    def between_draws(width: int) -> list[float]:
        pairs = ((wide.measured(x, width, 8, False, s) for s in (n, 100 + n)) for n in range(6))
        return [wide.relation_distance(*pair) for pair in pairs]

    narrow, broad = between_draws(16), between_draws(128)
    depth = wide.limit(wide.chain_kernel(x, 8), wide.chain_kernel(x, 4))
    assert fmean(narrow) > 3 * depth
    assert fmean(broad) < fmean(narrow) / 2
    assert stdev(narrow) > depth


def test_relation_is_of_the_order_of_one_over_the_batch(wide: Any) -> None:
    """B times the distance stays; its deviation between batches falls."""
    found = {}
    for count in (8, 32):
        batches = [wide.smooth_images(count, seed) for seed in range(6)]
        found[count] = [
            wide.limit(wide.chain_kernel(x, 8), wide.chain_kernel(x, 3)) for x in batches
        ]
    assert 0.4 < fmean(found[32]) / fmean(found[8]) < 1.2
    assert stdev(found[32]) < stdev(found[8])


def test_batch_norm_keeps_images_apart(wide: Any) -> None:
    """With it the cosines stay where they are; without it they tend to 1."""
    x = wide.smooth_images()
    mean = {
        (layers, norm): float(wide.cosines(x, wide.Chain(48, layers, False, 0, norm)).mean())
        for layers in (4, 32)
        for norm in (False, True)
    }
    assert mean[32, False] > 0.85 > mean[4, False]
    assert abs(mean[32, True] - mean[4, True]) < 0.1
    assert mean[32, True] < 0.5


# Semantic


def random_gradients(classes: int, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    shape = (2, classes, channels)
    both = torch.randn(shape, generator=generator) + torch.randn(2, classes, 1, generator=generator)
    both[0, 0, 1] = 0
    both[0, 1] *= 1e-7  # so that the rows that are compared are shorter than epsilon
    both[1, 2] *= 1e-30
    return both[0].double(), both[1].double()


def test_mean_over_all_orders_of_the_channels(wide: Any) -> None:
    teacher, student = random_gradients(3, 6)
    found = [
        float(rank_one_distance(teacher, student[:, list(order)], wide.EPSILON))
        for order in permutations(range(6))
    ]
    assert fmean(found) == pytest.approx(wide.expected_semantic(teacher, student), abs=1e-9)


def test_without_a_common_direction_nothing_but_the_width_is_seen(wide: Any) -> None:
    """Independent normal entries: about 2 - 4 / (pi D), for any two networks.

    The mean of an entry of a random unit vector is exact here.
    """
    generator = torch.Generator().manual_seed(0)
    for channels in (16, 64):
        teacher, student = torch.randn(2, 20_000, channels, generator=generator)
        ratio = math.exp(math.lgamma(channels / 2) - math.lgamma((channels + 1) / 2))
        expected = 2 - 2 * ratio**2 / math.pi
        assert float(rank_one_distance(teacher, student)) == pytest.approx(expected, abs=2.5e-3)
        assert expected == pytest.approx(2 - 4 / (math.pi * channels), abs=3e-3)


def test_semantic_does_not_see_the_direction(wide: Any) -> None:
    teacher, student = random_gradients(4, 32)
    flipped = rank_one_distance(teacher, -student, wide.EPSILON)
    torch.testing.assert_close(rank_one_distance(teacher, student, wide.EPSILON), flipped)


def test_a_uniform_student_beats_the_teachers_twin(wide: Any) -> None:
    """A network of the teacher's own kind agrees less than one whose channels all move together."""
    teacher, twin = random_gradients(20, 64)
    uniform = torch.ones_like(twin)
    assert wide.expected_semantic(teacher, uniform) < wide.expected_semantic(teacher, twin)


def test_a_deep_chain_moves_all_channels_together(wide: Any) -> None:
    """Its images differ by the length of their maps alone, and all channels share the length.

    Of maps that are wholly parallel, the uniformity is the mean over the root mean square of the
    channels, for any images.
    """
    x, labels = wide.smooth_images(20), torch.arange(20) % 5
    residual = 1 / 5 - torch.nn.functional.one_hot(labels, 5).float()
    found = {}
    for layers in (2, 8, 32):
        uniform = []
        for seed in range(3):
            features = wide.Chain(32, layers, False, seed)(x).mean((2, 3))
            gradient = residual.T @ features / len(x)
            uniform.append(wide.class_numbers(gradient).uniformity.mean())
        found[layers] = float(torch.stack(uniform).mean())
    direction = features.mean(0)
    parallel = torch.rand(20, 1, generator=torch.Generator().manual_seed(0)) * direction
    limit = float(direction.mean() / direction.square().mean().sqrt())
    assert found[2] < found[8] < found[32] < limit
    uniform = wide.class_numbers(residual.T @ parallel).uniformity
    torch.testing.assert_close(uniform.float(), torch.full((5,), limit), rtol=1e-4, atol=0)


Pair = tuple[torch.Tensor, torch.Tensor]
BLOCKS = (1, 3)


@pytest.fixture(scope="module")
def batch() -> Pair:
    found = digits().batch(50)
    return found.images, found.labels


@pytest.fixture(scope="module")
def teacher() -> torch.nn.Module:
    return fresh(partial(CifarResNet, (2, 2, 2), 5), "default", 0, 0, TEACHER)


@pytest.fixture(scope="module")
def trained(teacher: torch.nn.Module) -> torch.nn.Module:
    recipe = replace(LONG, epochs=3, losses={})
    return distill(None, copy.deepcopy(teacher), digits(), recipe).student


@pytest.fixture(scope="module")
def students(batch: Pair) -> dict[int, list[Observation]]:
    """Observations of five draws of a shallow and of a deep student."""
    return {n: [seen(student(n, seed), batch) for seed in range(1, 6)] for n in BLOCKS}


def student(blocks: int, seed: int) -> torch.nn.Module:
    return fresh(partial(CifarResNet, (blocks,) * 3, 5), "default", seed)


def seen(model: torch.nn.Module, batch: Pair) -> Observation:
    with torch.no_grad():
        return observe(model, *batch)


def test_random_networks_have_the_expected_semantic(
    wide: Any, batch: Pair, teacher: torch.nn.Module, students: dict[int, list[Observation]]
) -> None:
    """The deep student is nearer, as its channels move together more, not as it is more alike."""
    given = seen(teacher, batch)
    mean, uniform = {}, {}
    for blocks, draws in students.items():
        found = [float(semantic(given, each)) for each in draws]
        expected = fmean(
            wide.expected_semantic(given.class_gradient, each.class_gradient) for each in draws
        )
        mean[blocks] = fmean(found)
        assert mean[blocks] == pytest.approx(expected, abs=0.06)
        numbers = [wide.class_numbers(each.class_gradient).uniformity.mean() for each in draws]
        uniform[blocks] = float(torch.stack(numbers).mean())
    assert uniform[3] > uniform[1] + 0.1
    assert mean[3] < mean[1] - 0.1


def test_a_trained_teacher_hides_the_students_from_semantic(
    wide: Any,
    batch: Pair,
    teacher: torch.nn.Module,
    trained: torch.nn.Module,
    students: dict[int, list[Observation]],
) -> None:
    """Its channels are of single classes: they no longer move together."""
    gaps = {}
    for name, model in (("fresh", teacher), ("trained", trained)):
        given = seen(model, batch)
        means = {n: fmean(float(semantic(given, each)) for each in students[n]) for n in BLOCKS}
        gaps[name] = means[1] - means[3]
    uniform = [
        float(wide.class_numbers(seen(model, batch).class_gradient).uniformity.mean())
        for model in (teacher, trained)
    ]
    assert uniform[1] < uniform[0] / 2
    assert abs(gaps["trained"]) < gaps["fresh"] / 2


def test_a_student_that_inherits_is_seen(
    batch: Pair, trained: torch.nn.Module, students: dict[int, list[Observation]]
) -> None:
    """Its channels are the teacher's, so both distances are far below those of fresh students."""
    shallow = student(1, 9)
    inherit(trained, shallow)
    given, own = seen(trained, batch), seen(shallow, batch)
    others = [float(semantic(given, each)) for each in students[1]]
    assert float(semantic(given, own)) < fmean(others) - 3 * stdev(others)
    others = [float(relation(given, each)) for each in students[1]]
    assert float(relation(given, own)) < fmean(others) / 2
    twin = copy.deepcopy(trained)
    assert float(semantic(given, seen(twin, batch))) == pytest.approx(0, abs=1e-5)


def test_relation_does_not_see_the_scale_of_the_weights(wide: Any) -> None:
    x = wide.smooth_images()
    chain = wide.Chain(16, 3, False, 0)
    before = wide.relation_matrix(chain(x))
    for layer in chain.layers:
        layer.weight.data *= 3
    torch.testing.assert_close(wide.relation_matrix(chain(x)), before)

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
import toys
from reference import class_gradient, linear_class_gradient, with_batch_statistics
from torch import Tensor, nn
from toys import CLASSES, batch, seeded

from diswot.errors import UserError
from diswot.observation.observe import Observation, observe, record

Map = tuple[int, int, int]

# What each toy should show: its stages, the width of its classifier, the classifier's name.
SHAPES: dict[type[nn.Module], tuple[list[Map], int, str]] = {
    toys.LinearHead: ([(4, 8, 8), (6, 4, 4)], 6, "fc"),
    toys.FlattenedGrid: ([(4, 4, 4), (6, 2, 2)], 24, "fc"),
    toys.ClassToken: ([(6, 4, 4)], 6, "head"),
    toys.TwoHeads: ([(4, 8, 8), (6, 4, 4)], 6, "fc_dist"),
    toys.ScaledHead: ([(4, 8, 8), (6, 4, 4)], 6, "fc"),
    toys.WeightNormHead: ([(4, 8, 8), (6, 4, 4)], 6, "fc"),
    toys.ConvClassifier: ([(4, 8, 8), (6, 4, 4)], 6, "scores"),
    toys.PooledConvClassifier: ([(4, 8, 8), (6, 4, 4)], 6, "fc"),
    toys.Noisy: ([(4, 8, 8), (6, 4, 4)], 6, "fc"),
    toys.Overwriting: ([(4, 8, 8), (6, 4, 4)], 6, "fc"),
    toys.Nested: ([(5, 8, 8), (6, 4, 4), (7, 2, 2)], 7, "head.linear"),
    toys.StemAndStages: ([(5, 8, 8), (6, 4, 4), (8, 2, 2)], 10, "classifier"),
    toys.SqueezeExcite: ([(4, 8, 8), (6, 4, 4)], 6, "fc"),
    toys.ChannelsLast: ([(6, 4, 4), (10, 2, 2)], 10, "fc"),
    toys.FixedGrid: ([(4, 4, 4), (6, 2, 2)], 54, "fc"),
    toys.AttentionMatrices: ([(4, 8, 8), (6, 2, 2)], 6, "fc"),
    toys.InstanceStatistics: ([(4, 6, 6)], 4, "fc"),
}
LINEAR = (
    toys.LinearHead,
    toys.FlattenedGrid,
    toys.ClassToken,
    toys.Overwriting,
    toys.Nested,
    toys.StemAndStages,
    toys.SqueezeExcite,
    toys.ChannelsLast,
    toys.FixedGrid,
    toys.AttentionMatrices,
    toys.InstanceStatistics,
)
NOT_LINEAR = (toys.TwoHeads, toys.ScaledHead, toys.ConvClassifier, toys.PooledConvClassifier)

every_toy = pytest.mark.parametrize("toy", SHAPES, ids=lambda toy: toy.__name__)
both = pytest.mark.parametrize("look", [observe, record])


def shapes(maps: tuple[Tensor, ...]) -> list[Map]:
    return [tuple(features.shape[1:]) for features in maps]


def tensors(seen: Observation) -> list[Tensor]:
    rest = (seen.last, seen.head_input, seen.logits, seen.targets, seen.class_gradient)
    return [*seen.stages, *rest]


def assert_same(one: Observation, other: Observation) -> None:
    pairs = zip(tensors(one), tensors(other), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def assert_near(actual: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    """Within `tolerance` of the largest entry that is expected."""
    assert actual.shape == expected.shape
    largest = float(expected.abs().max())
    assert largest > 0
    assert float((actual.detach() - expected).abs().max()) <= tolerance * largest


def state(model: nn.Module) -> dict[str, object]:
    """All that a visitor could leave behind, in values that compare with ==."""
    modules = dict(model.named_modules())
    parameters = list(model.named_parameters())
    kinds = [key for key in vars(model) if key.endswith("_hooks")]
    return {
        "modes": {name: m.training for name, m in modules.items()},
        "attributes": {
            name: {k: v for k, v in vars(m).items() if isinstance(v, int | float | str | None)}
            for name, m in modules.items()
        },
        "buffers": {name: (id(b), b.tolist()) for name, b in model.named_buffers()},
        "keys": list(model.state_dict()),
        "parameters": {name: (id(p), p.tolist()) for name, p in parameters},
        "needed": {name: p.requires_grad for name, p in parameters},
        "gradients": {name: p.grad for name, p in parameters},
        "hooks": {name: [dict(vars(m)[key]) for key in kinds] for name, m in modules.items()},
        "random": torch.get_rng_state().tolist(),
        "python": random.getstate(),
        "numpy": [str(part) for part in np.random.get_state()],
    }


def lived_in(toy: Callable[[], nn.Module], mode: str) -> nn.Module:
    """A model with a history: statistics, frozen parameters, layers in modes of their own."""
    model = seeded(toy)
    for index, buffer in enumerate(model.buffers()):
        buffer.fill_(index + 2)
    for index, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(index % 2 == 0)
    model.train(mode != "eval")
    if mode == "mixed":
        for index, module in enumerate(model.modules()):
            module.training = index % 3 == 0
    return model


# What is seen


@every_toy
def test_stages_and_widths(toy: type[nn.Module]) -> None:
    stages, width, _ = SHAPES[toy]
    images, labels = batch()
    seen = observe(seeded(toy), images, labels)
    assert shapes(seen.stages) == stages
    assert shapes((seen.last,)) == stages[-1:]
    assert seen.head_input.shape == (6, width)
    assert seen.logits.shape == (6, CLASSES)
    assert seen.class_gradient.shape == (CLASSES, width)
    assert torch.equal(seen.targets, labels)
    assert not any(tensor.requires_grad for tensor in tensors(seen))


@both
def test_a_network_by_hand(look) -> None:
    # Maps (x, 0) and (0, x) of mean 2; logits (log 3, 0) and (0, log 3); so the probabilities of
    # the labels are 3/4, the errors (-1/4, 1/4) and (1/4, -1/4), times 2, over 2 samples.
    images = torch.tensor([[[1.0, 2.0], [3.0, 2.0]], [[-2.0, -2.0], [-1.0, -3.0]]])[:, None]
    seen = look(toys.ByHand(math.log(3) / 2), images, torch.tensor([0, 1]))
    maps = torch.zeros(2, 2, 2, 2)
    maps[0, 0], maps[1, 1] = images[0, 0], -images[1, 0]
    assert torch.equal(seen.last, maps)
    assert [torch.equal(stage, maps) for stage in seen.stages] == [True]
    assert torch.equal(seen.head_input, torch.tensor([[2.0, 0.0], [0.0, 2.0]]))
    assert_near(seen.logits, math.log(3) * torch.eye(2), 1e-6)
    assert_near(seen.class_gradient, torch.tensor([[-0.25, 0.25], [0.25, -0.25]]), 1e-6)


def test_maps_are_those_that_the_modules_give() -> None:
    images, labels = batch()
    model = seeded(toys.StemAndStages)
    seen = observe(model, images, labels)
    clone = with_batch_statistics(model)
    maps = [clone.stem(images)]
    for block in clone.stages:
        maps.append(block(maps[-1]))
    for actual, expected in zip(seen.stages, maps[1:], strict=True):
        assert torch.equal(actual, expected)
    assert torch.equal(seen.logits, clone(images))


def test_tokens_are_laid_out_row_by_row_without_the_class_token() -> None:
    images, labels = batch()
    model = seeded(toys.ClassToken).eval()
    caught = []
    handle = model.norm2.register_forward_hook(lambda *call: caught.append(call[2]))
    seen = observe(model, images, labels)
    handle.remove()
    assert torch.equal(seen.last[:, :, 2, 3], caught[0][:, 1 + 2 * 4 + 3])
    assert torch.equal(seen.head_input, caught[0][:, 0])


def test_a_block_that_returns_a_tuple_gives_its_first_as_map() -> None:
    images, labels = batch()
    model = seeded(toys.AttentionMatrices)
    clone = with_batch_statistics(model)
    expected = clone.block(clone.stem(images))[0]
    assert torch.equal(observe(model, images, labels).last, expected)
    assert torch.equal(observe(model, images, labels, layers={"last": "block"}).last, expected)


def test_a_convolution_that_classifies_leaves_its_input_as_last_map() -> None:
    images, labels = batch()
    model = seeded(toys.ConvClassifier)
    seen = observe(model, images, labels)
    expected = with_batch_statistics(model).features(images)
    assert torch.equal(seen.last, expected)
    assert torch.equal(seen.head_input, expected.mean((2, 3)))


def test_maps_with_channels_last_are_turned() -> None:
    images, labels = batch()
    model = seeded(toys.ChannelsLast)
    seen = observe(model, images, labels)
    first = model.patches(toys.fold(images.permute(0, 2, 3, 1)))
    assert torch.equal(seen.stages[0], first.permute(0, 3, 1, 2))


@pytest.mark.parametrize("pixels", [(8, 16), (16, 8), (9, 17)])
def test_images_need_not_be_square(pixels: tuple[int, int]) -> None:
    images = torch.randn(4, 3, *pixels, generator=torch.Generator().manual_seed(0))
    seen = observe(seeded(toys.LinearHead), images, torch.arange(4))
    half = tuple((side + 1) // 2 for side in pixels)
    assert shapes(seen.stages) == [(4, *pixels), (6, *half)]


def test_a_single_image_pixel_grid_at_the_end_is_still_the_last_map() -> None:
    images, labels = batch(pixels=2)
    seen = observe(seeded(toys.StemAndStages), images, labels)
    assert shapes(seen.stages) == [(5, 2, 2), (8, 1, 1)]
    assert seen.head_input.shape == (6, 10)


def test_half_precision_gives_a_class_gradient_in_single() -> None:
    images, labels = batch()
    seen = observe(seeded(toys.LinearHead).bfloat16(), images.bfloat16(), labels)
    assert seen.logits.dtype == torch.bfloat16
    assert seen.class_gradient.dtype == torch.float32


def test_autocast_gives_a_class_gradient_in_single() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        seen = record(seeded(toys.LinearHead), *batch())
    error = seen.logits.float().softmax(1) - nn.functional.one_hot(seen.targets, CLASSES)
    expected = error.T @ seen.head_input.float() / len(seen.targets)
    assert seen.class_gradient.dtype == torch.float32
    assert torch.equal(seen.class_gradient, expected)


# The class gradient


@pytest.mark.parametrize("toy", LINEAR + NOT_LINEAR, ids=lambda toy: toy.__name__)
def test_class_gradient_is_that_of_autograd_through_the_whole(toy: type[nn.Module]) -> None:
    images, labels = batch()
    model = seeded(toy)
    expected = class_gradient(model, images, labels, SHAPES[toy][2])
    assert_near(observe(model, images, labels).class_gradient, expected)
    if toy is not toys.Overwriting:
        seen = record(with_batch_statistics(model), images, labels)
        assert_near(seen.class_gradient, expected)


@pytest.mark.parametrize("toy", [*LINEAR, toys.WeightNormHead], ids=lambda toy: toy.__name__)
def test_linear_heads_take_one_forward_pass_and_none_backward(toy: type[nn.Module]) -> None:
    images, labels = batch()
    model = seeded(toy)
    calls = []
    forward = model.forward
    model.forward = lambda x: calls.append(torch.is_grad_enabled()) or forward(x)
    seen = observe(model, images, labels)
    assert calls == [False] * (2 if toy is toys.Overwriting else 1)
    expected = linear_class_gradient(seen.head_input, seen.logits, seen.targets)
    assert_near(seen.class_gradient, expected.float())


def test_a_frozen_classifier_has_a_gradient_too() -> None:
    images, labels = batch()
    for toy in (toys.LinearHead, toys.TwoHeads):
        free, frozen = seeded(toy), seeded(toy).requires_grad_(False)
        expected = observe(free, images, labels).class_gradient
        assert torch.equal(observe(frozen, images, labels).class_gradient, expected)
        assert not any(parameter.requires_grad for parameter in frozen.parameters())


def test_the_gradient_belongs_to_the_logits_of_the_same_noise() -> None:
    class NoisyTwoHeads(toys.TwoHeads):
        def features(self, images: Tensor) -> Tensor:
            return super().features(images) + torch.randn(len(images), 6)

    images, labels = batch()
    seen = observe(seeded(NoisyTwoHeads), images, labels)
    expected = linear_class_gradient(seen.head_input, seen.logits, labels) / 2
    assert_near(seen.class_gradient, expected.float())


# The modes in which it is seen


@every_toy
def test_the_mode_of_the_model_does_not_matter(toy: type[nn.Module]) -> None:
    images, labels = batch()
    torch.manual_seed(1)
    plain = observe(seeded(toy).train(), images, labels)
    assert_same(plain, observe(seeded(toy).eval(), images, labels))


@every_toy
def test_a_second_look_sees_the_same_bits(toy: type[nn.Module]) -> None:
    images, labels = batch()
    model = seeded(toy)
    torch.manual_seed(1)
    plain = observe(model, images, labels)
    assert_same(plain, observe(model, images, labels))
    assert_same(plain, observe(copy.deepcopy(model), images.clone(), labels.clone()))


def test_batch_statistics_are_used_and_not_the_running_ones() -> None:
    images, labels = batch()
    model = seeded(toys.LinearHead)
    expected = copy.deepcopy(model).train()(images)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.fill_(3)
            module.running_var.fill_(0.1)
    logits = observe(model.eval(), images, labels).logits
    assert torch.equal(logits, expected)
    assert not torch.allclose(logits, model(images), atol=0.1)


def test_instance_statistics_are_used_and_not_the_running_ones() -> None:
    images, labels = batch()
    model = seeded(toys.InstanceStatistics)
    expected = copy.deepcopy(model).train()(images)
    model.norm.running_mean.fill_(3)
    assert torch.equal(observe(model.eval(), images, labels).logits, expected)


def test_dropout_is_off() -> None:
    class Quiet(toys.Noisy):
        def forward(self, images: Tensor) -> Tensor:
            return self.fc(self.dropout(self.features(images)))

    images, labels = batch()
    model = seeded(Quiet)
    expected = model.fc(model.features(images))
    assert torch.equal(observe(model.train(), images, labels).logits, expected)


# What is left behind: nothing


@pytest.mark.parametrize("mode", ["train", "eval", "mixed"])
@every_toy
def test_the_model_is_left_as_it_was(toy: type[nn.Module], mode: str) -> None:
    model = lived_in(toy, mode)
    torch.manual_seed(7)
    before = state(model)
    observe(model, *batch())
    assert state(model) == before


@pytest.mark.parametrize("mode", ["train", "eval", "mixed"])
def test_the_model_is_left_as_it_was_when_it_raises(mode: str) -> None:
    model = lived_in(toys.Broken, mode)
    torch.manual_seed(7)
    before = state(model)
    with pytest.raises(RuntimeError, match="broken half-way"):
        observe(model, *batch())
    assert state(model) == before


@pytest.mark.parametrize("toy", [toys.LinearHead, toys.TwoHeads, toys.NoMap, toys.NoClassifier])
def test_the_model_is_left_as_it_was_when_the_input_is_wrong(toy: type[nn.Module]) -> None:
    model = lived_in(toy, "mixed")
    before = state(model)
    with pytest.raises(UserError):
        observe(model, batch()[0], torch.full((6,), CLASSES))
    assert state(model) == before


def test_the_model_is_left_as_it_was_when_the_second_pass_raises() -> None:
    class Twice(toys.TwoHeads):
        def forward(self, images: Tensor) -> Tensor:
            if torch.is_grad_enabled():
                raise RuntimeError("no second pass")
            return super().forward(images)

    model = lived_in(Twice, "mixed")
    before = state(model)
    with pytest.raises(RuntimeError, match="no second pass"):
        observe(model, *batch())
    assert state(model) == before


def test_gradients_that_are_there_stay() -> None:
    images, labels = batch()
    model = seeded(toys.TwoHeads)
    model(images).sum().backward()
    before = {name: p.grad.clone() for name, p in model.named_parameters()}
    observe(model, images, labels)
    assert all(torch.equal(p.grad, before[name]) for name, p in model.named_parameters())


def test_hooks_of_the_user_stay_and_ours_go_when_recording() -> None:
    images, labels = batch()
    model = seeded(toys.Nested)
    handle = model.neck.register_forward_hook(lambda *_: None)
    hooks = state(model)["hooks"]
    record(model, images, labels)
    assert state(model)["hooks"] == hooks
    handle.remove()
    broken = seeded(toys.Broken)
    hooks = state(broken)["hooks"]
    with pytest.raises(RuntimeError, match="broken half-way"):
        record(broken, images, labels)
    assert state(broken)["hooks"] == hooks


def test_the_images_are_left_as_they_were() -> None:
    images, labels = batch()
    before = images.clone(), labels.clone()
    observe(seeded(toys.TwoHeads), images, labels)
    assert torch.equal(images, before[0])
    assert torch.equal(labels, before[1])
    assert not images.requires_grad


# Maps that the model overwrites


def test_an_overwritten_map_is_seen_as_it_was() -> None:
    images, labels = batch()
    model = seeded(toys.Overwriting)
    seen = observe(model, images, labels)
    clone = with_batch_statistics(model)
    expected = clone.norm1(clone.conv1(images))
    assert float(expected.detach().min()) < 0
    assert torch.equal(seen.stages[0], expected)
    assert torch.equal(seen.logits, clone(images))


def test_an_overwritten_map_cannot_be_recorded() -> None:
    with pytest.raises(UserError, match="in place"):
        record(seeded(toys.Overwriting), *batch())


@pytest.mark.parametrize("layers", [{"last": "norm1"}, {"stages": ["norm1"], "last": "conv2"}])
def test_an_overwritten_map_by_name_is_no_different(layers: dict[str, object]) -> None:
    class Late(toys.Overwriting):
        def forward(self, images: Tensor) -> Tensor:
            features = self.norm1(self.conv1(images))
            features = nn.functional.relu_(features)
            return self.fc(self.conv2(features).mean((2, 3)))

    images, labels = batch()
    model = seeded(Late)
    seen = observe(model, images, labels, layers=layers)
    clone = with_batch_statistics(model)
    expected = clone.norm1(clone.conv1(images))
    assert torch.equal(seen.last if layers["last"] == "norm1" else seen.stages[0], expected)
    model.diswot_layers = layers
    with pytest.raises(UserError, match="in place"):
        record(model, images, labels)


def test_a_named_map_that_is_overwritten_but_ends_no_stage_is_seen_as_it_was() -> None:
    class Activated(toys.LinearHead):
        def __init__(self) -> None:
            super().__init__()
            self.block1[2] = nn.ReLU(inplace=True)

    images, labels = batch()
    model = seeded(Activated)
    layers = {"stages": ["block1.1", "block2"]}
    seen = observe(model, images, labels, layers=layers)
    assert float(seen.stages[0].min()) < 0
    model.diswot_layers = layers
    with pytest.raises(UserError, match="in place"):
        record(model, images, labels)
    del model.diswot_layers
    assert not bool((record(model, images, labels).stages[0] < 0).any())


# Recording a step of training


@pytest.mark.parametrize("toy", [toys.LinearHead, toys.TwoHeads, toys.ConvClassifier, toys.Nested])
def test_a_record_is_differentiable(toy: type[nn.Module]) -> None:
    images, labels = batch()
    model = seeded(toy)
    seen = record(model, images, labels)
    for value in (*seen.stages, seen.last, seen.head_input, seen.logits):
        assert value.requires_grad
    seen.class_gradient.square().sum().backward()
    first = next(model.parameters())
    assert first.grad is not None
    assert float(first.grad.abs().max()) > 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("toy", [toys.LinearHead, toys.TwoHeads, toys.ScaledHead])
def test_the_class_gradient_of_a_record_has_the_right_slope(toy: type[nn.Module]) -> None:
    images, labels = batch()
    model = with_batch_statistics(seeded(toy))
    weight = model.fc.weight
    seen = record(model, images, labels)
    (slope,) = torch.autograd.grad(seen.class_gradient.square().sum(), weight)
    plain = nn.functional.cross_entropy(model(images), labels)
    named = model.get_submodule(SHAPES[toy][2]).weight
    (gradient,) = torch.autograd.grad(plain, named, create_graph=True)
    (expected,) = torch.autograd.grad(gradient.square().sum(), weight)
    assert_near(slope, expected)


def test_a_record_is_one_forward_pass_in_the_models_own_mode() -> None:
    images, labels = batch()
    for mode in (True, False):
        for toy in (toys.Noisy, toys.TwoHeads):
            model, other = seeded(toy).train(mode), seeded(toy).train(mode)
            torch.manual_seed(3)
            seen = record(model, images, labels)
            torch.manual_seed(3)
            assert torch.equal(seen.logits, other(images))
            states = zip(model.buffers(), other.buffers(), strict=True)
            assert all(torch.equal(a, b) for a, b in states)
            assert all(module.training == mode for module in model.modules())
            assert all(parameter.grad is None for parameter in model.parameters())


# Layers by name


def test_layers_may_be_named() -> None:
    images, labels = batch()
    model = seeded(toys.TwoHeads)
    layers = {"stages": ["block1.0", "block2.1"], "last": "block1", "classifier": "fc"}
    seen = observe(model, images, labels, layers=layers)
    clone = with_batch_statistics(model)
    first = clone.block1(images)
    assert torch.equal(seen.stages[0], clone.block1[0](images))
    assert torch.equal(seen.stages[1], clone.block2[1](clone.block2[0](first)))
    assert torch.equal(seen.last, first)
    assert_near(seen.class_gradient, class_gradient(model, images, labels, "fc"))


def test_the_last_of_named_stages_is_the_last_map() -> None:
    seen = observe(seeded(toys.LinearHead), *batch(), layers={"stages": ["block1"]})
    assert shapes(seen.stages) == [(4, 8, 8)]
    assert seen.last is seen.stages[0]


def test_a_named_last_leaves_the_guessed_stages() -> None:
    seen = observe(seeded(toys.LinearHead), *batch(), layers={"last": "block1"})
    assert shapes(seen.stages) == [(4, 8, 8), (6, 4, 4)]
    assert shapes((seen.last,)) == [(4, 8, 8)]


@both
def test_a_model_names_its_own_layers(look) -> None:
    model = seeded(toys.LinearHead)
    model.diswot_layers = {"stages": ["block1"]}
    assert shapes(look(model, *batch()).stages) == [(4, 8, 8)]
    assert shapes(observe(model, *batch(), layers={"last": "block1"}).stages) == [
        (4, 8, 8),
        (6, 4, 4),
    ]


class Parallel(nn.DataParallel):
    """A network that is parallel over devices, on any machine."""

    def forward(self, images: Tensor) -> Tensor:
        return self.module(images)


@both
def test_a_wrapped_model_names_its_own_layers(look) -> None:
    model = seeded(toys.ScaledHead)
    model.diswot_layers = {"stages": ["block1"], "classifier": "fc"}
    expected = look(model, *batch(), cam=True)
    seen = look(Parallel(model), *batch(), cam=True)
    assert shapes(seen.stages) == [(4, 8, 8)]
    assert torch.equal(seen.class_gradient, expected.class_gradient)
    assert torch.equal(seen.cam_weights, expected.cam_weights)


@both
@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"last": "blok2"}, "unknown layer 'blok2'; did you mean .*block2"),
        ({"stages": ["block1", "bloc2"]}, "unknown layer 'bloc2'; did you mean .*block2"),
        ({"classifier": "fcc"}, "unknown layer 'fcc'; did you mean fc"),
        ({"clasifier": "fc"}, "unknown key of layers 'clasifier'; did you mean classifier"),
        ({"last": "fc"}, r"'fc' gives a float32 tensor \(6, 5\), which is no feature map"),
        ({"classifier": "block1.0"}, "no layer|no classifier|no linear"),
    ],
)
def test_wrong_names_are_told(look, layers: dict[str, object], message: str) -> None:
    model = seeded(toys.LinearHead)
    model.diswot_layers = layers
    with pytest.raises(UserError, match=message):
        look(model, *batch())


def test_a_named_layer_that_does_not_run_is_told() -> None:
    model = seeded(toys.LinearHead)
    model.spare = nn.Conv2d(3, 3, 1)
    with pytest.raises(UserError, match="'spare' gave no output"):
        observe(model, *batch(), layers={"last": "spare"})


# Bad input


@both
@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (lambda z: (z, z), "not a tuple"),
        (lambda z: {"logits": z}, "not a dict"),
        (lambda z: z[:, :, None], r"not a float32 tensor \(6, 5, 1\)"),
        (lambda z: z.mean(0, keepdim=True), r"not a float32 tensor \(1, 5\)"),
        (lambda z: None, "not a NoneType"),
    ],
)
def test_outputs_that_are_no_logits_are_told(look, wrap, message: str) -> None:
    with pytest.raises(UserError, match=f"one tensor of logits N x K, {message}"):
        look(seeded(lambda: toys.Returning(wrap)), *batch())


@both
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0, 1, 2, 3, 4, 5]), "label 5 does not fit a model with 5 classes"),
        (torch.tensor([0, 1, -1, 3, 4, 4]), "label -1 does not fit a model with 5 classes"),
        (torch.zeros(5, dtype=torch.long), r"not a int64 tensor \(5,\)"),
        (torch.zeros(6, 5), r"not a float32 tensor \(6, 5\)"),
        (torch.zeros(6), r"not a float32 tensor \(6,\)"),
    ],
)
def test_labels_that_do_not_fit_are_told(look, labels: Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message):
        look(seeded(toys.LinearHead), batch()[0], labels)


@both
@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(1, 3, 8, 8), "at least two images"),
        (torch.zeros(3, 8, 8), r"not a float32 tensor \(3, 8, 8\)"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), r"not a uint8 tensor \(2, 3, 8, 8\)"),
    ],
)
def test_images_that_do_not_fit_are_told(look, images: Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message):
        look(seeded(toys.LinearHead), images, torch.zeros(len(images), dtype=torch.long))


@both
@pytest.mark.parametrize("channels", [1, 4])
def test_images_of_other_channels_are_told(look, channels: int) -> None:
    images = torch.zeros(2, channels, 8, 8)
    with pytest.raises(UserError, match=f"^the images have {channels} channels, .* takes 3$"):
        look(seeded(toys.LinearHead), images, torch.zeros(2, dtype=torch.long))


def test_channels_that_go_wrong_inside_are_the_models_own_error() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(4, 5))
    with pytest.raises(RuntimeError, match="to have 3 channels, but got 4"):
        observe(model, *batch())


@pytest.mark.parametrize("toy", [toys.LinearHead, toys.TwoHeads, toys.ClassToken])
def test_inference_mode_changes_nothing(toy: type[nn.Module]) -> None:
    model = seeded(toy)
    expected = observe(model, *batch(), cam=True)
    with torch.inference_mode():
        made = tuple(tensor.clone() for tensor in batch())
        found = observe(model, *made, cam=True)
    assert not found.last.is_inference() and found.last._version == expected.last._version
    flat = [[*seen.stages, seen.last, *vars(seen).values()] for seen in (expected, found)]
    for a, b in zip(*flat, strict=True):
        assert (a is b is None) or isinstance(a, tuple) or torch.equal(a, b)


def test_a_model_built_in_inference_mode_is_told_where_it_needs_gradients() -> None:
    with torch.inference_mode():
        linear, pair = seeded(toys.LinearHead), seeded(toys.TwoHeads)
    assert observe(linear, *batch()).class_gradient.isfinite().all()
    message = r"built in torch.inference_mode\(\) has no gradients"
    with pytest.raises(UserError, match=message):
        observe(pair, *batch())


@both
def test_a_model_without_a_classifier_is_told(look) -> None:
    with pytest.raises(UserError, match=r"no classifier found: .* 5 outputs.*layers"):
        look(seeded(toys.NoClassifier), *batch())


@both
def test_a_model_with_buffers_only_is_told(look) -> None:
    with pytest.raises(UserError, match=r"no classifier found: .* 5 outputs.*layers"):
        look(toys.BuffersOnly(), *batch())


@both
def test_a_model_without_a_map_is_told(look) -> None:
    with pytest.raises(UserError, match=r"no feature map found.*layers"):
        look(seeded(toys.NoMap), *batch())


def test_which_of_several_classifiers_is_taken_is_said(caplog: pytest.LogCaptureFixture) -> None:
    model = seeded(toys.TwoHeads)
    observe(model, *batch())
    assert [text.partition(", unless")[0] for text in caplog.messages] == [
        "several layers may be the classifier: fc, fc_dist; fc_dist is taken"
    ]
    caplog.clear()
    first = observe(model, *batch(), layers={"classifier": "fc"})
    observe(seeded(toys.LinearHead), *batch())
    assert not caplog.messages
    assert first.class_gradient.shape == (CLASSES, 6)


def test_one_name_of_a_stage_is_not_a_list_of_names() -> None:
    with pytest.raises(UserError, match="a list of names"):
        observe(seeded(toys.LinearHead), *batch(), layers={"stages": "block1"})


def test_what_follows_pooling_may_be_overwritten() -> None:
    """As the first layers of a classifier do, dropout or a rectifier in place."""

    class Model(toys.LinearHead):
        def forward(self, images: Tensor) -> Tensor:
            pooled = self.pool(self.block2(self.block1(images)))
            return self.fc(pooled.flatten(1).mul_(2))

    model = seeded(Model).train()
    seen = record(model, *batch())
    assert [tuple(stage.shape[1:]) for stage in seen.stages] == SHAPES[toys.LinearHead][0]
    assert torch.equal(model.fc(seen.head_input), seen.logits)


def test_an_observation_is_shown_in_one_line() -> None:
    rows, classes = torch.zeros(5, 8), torch.zeros(5, dtype=torch.int64)
    stages = torch.zeros(5, 4, 2, 2), torch.zeros(5, 8, 1, 1)
    seen = Observation(stages, stages[1], rows, torch.zeros(5, 3), classes, torch.zeros(3, 8))

    shown = "Observation(5 rows, 3 classes, stages (5, 4, 2, 2), (5, 8, 1, 1))"
    assert repr(seen) == shown

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
import toys
from reference import with_batch_statistics
from torch import Tensor, nn
from toys import batch, seeded

from diswot.errors import UserError
from diswot.observation import gradcam
from diswot.observation.observe import observe, record

# The classifier is one linear layer on the mean of the last map, and nothing else.
CLOSED = (
    toys.LinearHead,
    toys.WeightNormHead,
    toys.SqueezeExcite,
    toys.ChannelsLast,
    toys.AttentionMatrices,
)
# Slopes come from a second pass; where the logits depend on the last map, and where not.
OPEN = {
    toys.FlattenedGrid: "body",
    toys.TwoHeads: "block2",
    toys.ScaledHead: "block2",
    toys.ConvClassifier: "features",
    toys.PooledConvClassifier: "block2",
    toys.Nested: "neck",
    toys.StemAndStages: "stages",
    toys.FixedGrid: "features",
    toys.InstanceStatistics: "norm",
}
TIMM = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 2}


def named(toy: object) -> str:
    return getattr(toy, "__name__", str(toy))


def vit(**options: object) -> nn.Module:
    return timm.models.VisionTransformer(num_classes=toys.CLASSES, **TIMM, **options)


def slopes(model: nn.Module, images: Tensor, labels: Tensor, layer: str) -> Tensor:
    """Of each label's logit in the output of a layer, averaged over positions; by autograd."""
    clone = with_batch_statistics(model)
    caught = []
    handle = clone.get_submodule(layer).register_forward_hook(lambda *call: caught.append(call[2]))
    logits = clone(images)
    handle.remove()
    own = logits[torch.arange(len(labels)), labels].sum()
    (slope,) = torch.autograd.grad(own, caught[-1])
    return slope.mean((2, 3))


@pytest.mark.parametrize("toy", CLOSED, ids=named)
def test_the_closed_form_is_that_of_autograd(toy: type[nn.Module]) -> None:
    images, labels = batch()
    model = seeded(toy)
    free = observe(model, images, labels)
    assert free.cam_weights is not None
    shape = free.last.shape[:2]
    # Spoil the check for exactness, so that autograd has to do it.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gradcam, "reads_mean", lambda *maps: False)
        assert observe(model, images, labels).cam_weights is None
        slow = observe(model, images, labels, cam=True)
    assert slow.cam_weights.shape == free.cam_weights.shape == shape
    assert float(free.cam_weights.abs().max()) > 0
    torch.testing.assert_close(slow.cam_weights, free.cam_weights.detach())


def test_the_closed_form_by_hand() -> None:
    # Weights are the rows of the classifier over the number of positions, 2 x 2.
    images = torch.tensor([[[1.0, 2.0], [3.0, 2.0]], [[-2.0, -2.0], [-1.0, -3.0]]])[:, None]
    seen = observe(toys.ByHand(6.0), images, torch.tensor([1, 0]))
    assert torch.equal(seen.cam_weights, torch.tensor([[0.0, 1.5], [1.5, 0.0]]))


@pytest.mark.parametrize("toy", OPEN, ids=named)
def test_other_heads_by_autograd_and_only_when_asked(toy: type[nn.Module]) -> None:
    images, labels = batch()
    model = seeded(toy)
    assert observe(model, images, labels).cam_weights is None
    expected = slopes(model, images, labels, OPEN[toy])
    assert float(expected.abs().max()) > 0
    for frozen in (False, True):
        model.requires_grad_(not frozen)
        seen = observe(model, images, labels, cam=True)
        assert not seen.cam_weights.requires_grad
        torch.testing.assert_close(seen.cam_weights, expected, rtol=1e-4, atol=1e-6)
    graph = record(with_batch_statistics(seeded(toy)), images, labels, cam=True)
    torch.testing.assert_close(graph.cam_weights.detach(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("toy", [*CLOSED, *OPEN, toys.ClassToken], ids=named)
def test_all_else_is_as_without(toy: type[nn.Module]) -> None:
    images, labels = batch()
    plain, seen = (observe(seeded(toy), images, labels, cam=cam) for cam in (False, True))
    assert torch.equal(plain.logits, seen.logits)
    assert torch.equal(plain.last, seen.last)
    assert torch.equal(plain.class_gradient, seen.class_gradient)


def test_tokens_with_a_pooled_head() -> None:
    images, labels = batch(pixels=32)
    model = seeded(lambda: vit(global_pool="avg"))
    seen = observe(model, images, labels, cam=True)
    clone = with_batch_statistics(model)
    tokens = clone.forward_features(images)
    logits = clone.forward_head(tokens)
    own = logits[torch.arange(len(labels)), labels].sum()
    (slope,) = torch.autograd.grad(own, tokens)
    expected = slope[:, 1:].mean(1)
    torch.testing.assert_close(seen.cam_weights, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("build", [toys.ClassToken, vit], ids=named)
def test_a_class_token_does_not_see_the_last_map_but_earlier_ones(build: Callable) -> None:
    images, labels = batch(pixels=32 if build is vit else 8)
    model = seeded(build)
    blind = observe(model, images, labels, cam=True)
    assert blind.cam_weights.shape == blind.last.shape[:2]
    assert not blind.cam_weights.any()
    earlier = {"last": "blocks.0" if build is vit else "norm1"}
    assert observe(model, images, labels, layers=earlier, cam=True).cam_weights.any()


def test_named_maps() -> None:
    images, labels = batch()
    model = seeded(toys.LinearHead)
    expected = slopes(model, images, labels, "block1")
    for layers in ({"last": "block1"}, {"stages": ["block1"]}):
        assert observe(model, images, labels, layers=layers).cam_weights is None
        seen = observe(model, images, labels, layers=layers, cam=True)
        torch.testing.assert_close(seen.cam_weights, expected, rtol=1e-4, atol=1e-6)


def test_a_last_map_that_is_overwritten_has_the_weights_it_had_before() -> None:
    class Late(toys.LinearHead):
        def features(self, images: Tensor) -> Tensor:
            features = self.block2[1](self.block2[0](self.block1(images)))
            return nn.functional.relu_(features).square().mean((2, 3))

    images, labels = batch()
    model = seeded(Late)
    seen = observe(model, images, labels, cam=True)
    assert float(seen.last.min()) < 0
    # The slope of (relu A)^2 / 16 is relu(A) / 8, and its mean over 16 positions half a sixteenth.
    expected = model.fc.weight[labels] * seen.last.relu().mean((2, 3)) / 8
    torch.testing.assert_close(seen.cam_weights, expected.detach())
    with pytest.raises(UserError, match="in place"):
        record(seeded(Late), images, labels, cam=True)


@pytest.mark.parametrize("toy", [toys.ConvClassifier, toys.TwoHeads], ids=named)
def test_a_frozen_teacher_can_be_recorded(toy: type[nn.Module]) -> None:
    images, labels = batch()
    model = seeded(toy).eval().requires_grad_(False)
    with torch.no_grad():
        seen = record(model, images, labels, cam=True)
    free = record(seeded(toy).eval(), images, labels, cam=True)
    assert not seen.cam_weights.requires_grad
    torch.testing.assert_close(seen.cam_weights, free.cam_weights.detach())


def test_the_second_pass_has_a_graph_from_the_last_map_on_alone() -> None:
    images, labels = batch()
    model = seeded(toys.TwoHeads)
    graphs = []
    for layer in (model.block1, model.fc):
        layer.register_forward_hook(lambda *call: graphs.append(call[2].requires_grad))
    observe(model, images, labels, cam=True)
    # observed; again with a graph for the class gradient; again for the maps
    assert graphs == [False, False, True, True, False, True]


@pytest.mark.parametrize("enabled", [False, True])
def test_gradients_stay_on_or_off(enabled: bool) -> None:
    class Fragile(toys.ScaledHead):
        passes = 0

        def forward(self, images: Tensor) -> Tensor:
            self.passes += 1
            logits = super().forward(images)
            if self.passes == 3:
                raise RuntimeError("too much")
            return logits

    model = seeded(Fragile)
    with torch.set_grad_enabled(enabled):
        with pytest.raises(RuntimeError, match="too much"):
            observe(model, *batch(), cam=True)
        assert torch.is_grad_enabled() == enabled
        observe(model, *batch(), cam=True)
        assert torch.is_grad_enabled() == enabled
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_the_model_is_left_as_it_was() -> None:
    images, labels = batch()
    model = seeded(toys.TwoHeads).train()
    model(images).sum().backward()
    before = {name: p.grad.clone() for name, p in model.named_parameters()}
    buffers = [buffer.clone() for buffer in model.buffers()]
    torch.manual_seed(5)
    state = torch.get_rng_state()
    observe(model, images, labels, cam=True)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(p.grad, before[name]) for name, p in model.named_parameters())
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), buffers, strict=True))
    assert not images.requires_grad
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("toy", [toys.LinearHead, toys.TwoHeads, toys.Nested], ids=named)
def test_weights_of_a_record_have_the_slope_of_the_network(toy: type[nn.Module]) -> None:
    images, labels = batch()
    model = seeded(toy)
    seen = record(model, images, labels, cam=True)
    (seen.cam_weights.square().sum() + seen.logits.sum()).backward()
    head = [p for name, p in model.named_parameters() if name.startswith(("fc", "head"))]
    assert any(p.grad is not None and p.grad.any() for p in head)
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_counts_as_the_mean(dtype: torch.dtype) -> None:
    maps = torch.randn(4, 5, 7, 7, generator=torch.Generator().manual_seed(0)).to(dtype)
    mean = maps.float().mean((2, 3)).to(dtype)
    assert gradcam.reads_mean(mean, maps)
    assert gradcam.reads_mean(nn.AdaptiveAvgPool2d(1)(maps).flatten(1), maps)
    assert gradcam.reads_mean(torch.zeros(4, 5), torch.zeros(4, 5, 2, 2))
    assert not gradcam.reads_mean(1.05 * mean, maps)
    assert not gradcam.reads_mean(mean.relu(), maps)
    assert not gradcam.reads_mean(mean[:, :4], maps)
    assert not gradcam.reads_mean(maps.amax((2, 3)), maps)

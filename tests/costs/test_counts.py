"""What is counted, what is not, and that it is said."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from diswot.costs.counts import count, count_sizes
from diswot.models.registry import create_teacher
from diswot.spaces.registry import construct, create_space
from diswot.spaces.trials import EnumeratingTrial

SHAPE = (3, 8, 8)


class Function(nn.Module):
    """No parameters, one function of the images."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(images)


@torch.library.custom_op("diswot_test::twice", mutates_args=())
def twice(x: Tensor) -> Tensor:
    return 2 * x


@twice.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


@pytest.mark.parametrize(
    ("function", "macs"),
    [
        (lambda x: torch.einsum("bchw,bdhw->bcd", x, x), 3 * 3 * 64),
        (lambda x: x @ x, 3 * 8**3),
        (lambda x: x[0, 0] @ x[0, 0, 0], 64),
        (lambda x: torch.addmv(x[0, 0, 0], x[0, 0], x[0, 0, 0]), 64),
        (lambda x: x[0, 0, 0] @ x[0, 0, 0], 8),
        (lambda x: F.conv1d(x[0], torch.ones(4, 8, 3)), 3 * 6 * 4 * 8 * 3),
        (lambda x: torch.utils.checkpoint.checkpoint(torch.bmm, x[0], x[0], use_reentrant=False),
         3 * 8**3),
    ],
)  # fmt: skip
def test_products_are_counted_however_they_are_written(
    function: Callable[[Tensor], Tensor], macs: int
) -> None:
    counts = count(Function(function), SHAPE)

    assert (counts.macs, counts.uncounted) == (macs, ())


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (torch.fft.rfft2, ("_fft_r2c",)),
        (lambda x: torch.cdist(x, x), ("_cdist_forward",)),
        (
            lambda x: torch.cdist(x.expand(1, 3, 8, 8).reshape(1, 24, 8).repeat(1, 2, 1), x[0]),
            ("_euclidean_dist",),
        ),
        (lambda x: F.bilinear(x, x, torch.ones(2, 8, 8)), ("_trilinear",)),
        (torch.linalg.svdvals, ("_linalg_svd",)),
        (lambda x: torch.addbmm(x[0, 0], x[0], x[0]), ("addbmm",)),
        (lambda x: torch.sparse.mm(x[0, 0].to_sparse(), x[0, 0]), ("_sparse_addmm",)),
        (
            lambda x: torchvision.ops.deform_conv2d(
                x, torch.zeros(1, 18, 6, 6), torch.ones(2, 3, 3, 3)
            ),
            ("torchvision::deform_conv2d",),
        ),
        (twice, ("diswot_test::twice",)),
        (lambda x: torch.fft.fft(twice(x)).abs(), ("_fft_r2c", "diswot_test::twice")),
    ],
)
def test_products_without_a_formula_are_named(
    function: Callable[[Tensor], Tensor], names: tuple[str, ...]
) -> None:
    counts = count(Function(function), SHAPE)

    assert (counts.macs, counts.uncounted) == (0, names)
    assert count_sizes(Function(function), SHAPE)["uncounted"] == [*names]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
        lambda x: F.interpolate(x.flatten(2), scale_factor=2, mode="linear"),
        lambda x: F.max_pool2d(x, 2),
        lambda x: F.adaptive_avg_pool2d(x, 3),
        lambda x: F.layer_norm(x, (8,)).softmax(-1) * x.exp(),
        lambda x: F.normalize(x).cumsum(-1),
        lambda x: F.unfold(x, 3),
        lambda x: F.embedding(x.long(), torch.ones(3, 4)),
        lambda x: x.double().to(torch.bfloat16).transpose(1, 2).contiguous(),
    ],
)
def test_what_the_convention_leaves_out_makes_no_noise(
    function: Callable[[Tensor], Tensor],
) -> None:
    counts = count(Function(function), SHAPE)

    assert (counts.macs, counts.uncounted) == (0, ())
    assert "uncounted" not in count_sizes(Function(function), SHAPE)


class Recurrent(nn.Module):
    """A recurrent layer over the rows of an image: 8 steps of 24 numbers."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images.permute(0, 2, 1, 3).flatten(2))[0]


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
@pytest.mark.parametrize("directions", [1, 2])
def test_recurrent_layers_by_hand(kind: type[nn.RNNBase], gates: int, directions: int) -> None:
    layer = kind(24, 16, 2, batch_first=True, bidirectional=directions == 2)
    first, second = gates * 16 * (24 + 16), gates * 16 * (16 * directions + 16)

    counts = count(Recurrent(layer), SHAPE)

    assert (counts.macs, counts.uncounted) == (8 * directions * (first + second), ())


def test_the_lstm_of_a_packed_sequence() -> None:
    layer = nn.LSTM(24, 16, batch_first=True)

    class Packed(Recurrent):
        def forward(self, images: Tensor) -> Tensor:
            rows = images.permute(0, 2, 1, 3).flatten(2)
            packed = nn.utils.rnn.pack_padded_sequence(rows, torch.tensor([5]), batch_first=True)
            return self.layer(packed)[0].data

    assert count(Packed(layer), SHAPE).macs == 5 * 4 * 16 * (24 + 16)


@pytest.mark.parametrize(
    ("function", "macs"),
    [
        (lambda x: F.scaled_dot_product_attention(x, x, x), 2 * 3 * 8**3),
        (lambda x: F.conv_transpose2d(x, torch.ones(3, 4, 2, 2), stride=2), 64 * 3 * 4 * 4),
        (lambda x: torch.bmm(x[0], x[0]), 3 * 8**3),
        (lambda x: nn.MultiheadAttention(8, 2, batch_first=True)(x[0], x[0], x[0])[0],
         3 * (4 * 8 * 64 + 2 * 64 * 8)),
    ],
)  # fmt: skip
def test_attention_and_transposed_convolutions_by_hand(
    function: Callable[[Tensor], Tensor], macs: int
) -> None:
    counts = count(Function(function), SHAPE)

    assert (counts.macs, counts.uncounted) == (macs, ())


def test_flex_attention_is_counted_with_whole_maps() -> None:
    flex = pytest.importorskip("torch.nn.attention.flex_attention").flex_attention

    counts = count(Function(lambda x: flex(x, x, x)), (2, 8, 8))

    assert (counts.macs, counts.uncounted) == (2 * 2 * 8**3, ())


def test_marks_of_the_profiler_are_no_operations() -> None:
    def marked(x: Tensor) -> Tensor:
        with torch.profiler.record_function("mark"):
            return x @ x

    counts = count(Function(marked), SHAPE)

    assert (counts.macs, counts.uncounted) == (3 * 8**3, ())


@pytest.mark.parametrize("name", ["s0", "nasbench201", "autoformer", "pit"])
def test_a_space_is_counted_whole_and_as_torch_counts(name: str) -> None:
    model = construct(create_space(name, 10), EnumeratingTrial()).eval()
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, 32, 32))

    counts = count(model, (3, 32, 32))

    assert counts.uncounted == ()
    assert counts.macs >= counter.get_total_flops() // 2 > 0
    if name in ("s0", "nasbench201"):  # torch does not see the fused kernels of attention
        assert counts.macs == counter.get_total_flops() // 2


@pytest.mark.parametrize("name", ["ssdlite320_mobilenet_v3_large", "fcos_resnet50_fpn"])
def test_a_detector_is_its_backbone_and_its_heads(name: str) -> None:
    model = create_teacher(f"torchvision:{name}", 3, 64).eval()
    padded = torch.zeros(1, 3, 64, 100 if name.startswith("ssd") else 128)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        maps = model.get_submodule("backbone")(padded)
        model.get_submodule("head")(list(maps.values()))

    counts = count(model, (3, 64, 100))

    assert (counts.macs, counts.uncounted) == (counter.get_total_flops() // 2, ())
    assert counts.memory > 4 * sum(each.numel() for each in maps.values())


def test_the_heads_of_a_two_stage_detector_are_counted_at_each_proposal() -> None:
    """Two linear layers of 1,024, and the outputs for 4 classes and their boxes."""
    model = create_teacher("torchvision:fasterrcnn_mobilenet_v3_large_fpn", 3, 64).eval()
    met: list[int] = []
    roi = model.get_submodule("roi_heads.box_head")
    roi.register_forward_pre_hook(lambda _, given: met.append(len(given[0])))
    counts = count(model, (3, 64, 64))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        maps = list(model.get_submodule("backbone")(torch.zeros(1, 3, 64, 64)).values())
        model.get_submodule("rpn.head")(maps)

    heads = met[0] * (256 * 7 * 7 * 1024 + 1024 * 1024 + 1024 * (4 + 16))

    assert counts.all_macs() == counter.get_total_flops() // 2 + heads and met[0] > 0

"""What is counted, what is not, and that it is said."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from diswot.costs.counts import count
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

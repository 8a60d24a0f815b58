"""What `semantic` and `relation` see of networks with random weights: the numbers of the page.

    python benchmarks/initialisation.py

Letters: B images, C channels, H x W positions, L layers. The kernel of a wide network holds the
mean over channels of the product of two images' maps at one position, B x B x H x W. Networks here
are chains of 3x3 convolutions with He's weights and without biases, plain or with shortcuts, so
that their kernels have closed forms.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from statistics import fmean, stdev

import torch
from pages import markdown
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, relu

from diswot.models.cifar_resnet import CifarResNet
from diswot.models.initialization import TEACHER, fresh
from diswot.observation.functional import relation_matrix, unit_rows
from diswot.observation.observe import Observation, observe

SIZE, IMAGES = 8, 16
DEPTHS = (2, 4, 8, 16, 32)


def smooth_images(count: int = IMAGES, seed: int = 0) -> Tensor:
    """Return random images whose neighbouring pixels resemble each other, B x 3 x 8 x 8.

    Each has a brightness and a contrast of its own, as photographs have.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, 3, SIZE, SIZE, generator=generator)
    contrast = 0.5 + torch.rand(count, 1, 1, 1, generator=generator)
    brightness = torch.randn(count, 1, 1, 1, generator=generator)
    return 2 * contrast * avg_pool2d(noise, 3, 1, 1) + 0.5 * brightness


# Kernels


def input_kernel(images: Tensor) -> Tensor:
    """Return the products of images at each position, mean over channels."""
    return torch.einsum("ichw,jchw->ijhw", images, images) / images.shape[1]


def convolved(kernel: Tensor) -> Tensor:
    """Return the kernel after a 3x3 convolution with weights N(0, 2 / 9 C), zeros around."""
    return 2 * avg_pool2d(kernel, 3, 1, 1)


def rectified(kernel: Tensor) -> Tensor:
    """Return the kernel after a ReLU (Cho and Saul, 2009): the arc-cosine kernel of degree 1."""
    variance = torch.diagonal(kernel).permute(2, 0, 1)
    length = (variance[:, None] * variance[None]).sqrt()
    cosine = (kernel / length.clamp_min(1e-30)).clamp(-1, 1)
    return length * next_cosine(cosine) / 2


def next_cosine(cosine: Tensor) -> Tensor:
    """Return the cosine of two images' maps after a convolution of one position and a ReLU."""
    return ((1 - cosine**2).sqrt() + cosine * (math.pi - cosine.acos())) / math.pi


def chain_kernel(images: Tensor, layers: int) -> Tensor:
    """Return the kernel of L convolutions, each with a ReLU."""
    kernel = input_kernel(images.double())
    for _ in range(layers):
        kernel = rectified(convolved(kernel))
    return kernel


def residual_kernel(images: Tensor, layers: int) -> Tensor:
    """Return the kernel of a convolution, L - 1 blocks x + conv(relu(x)), and a ReLU."""
    kernel = convolved(input_kernel(images.double()))
    for _ in range(layers - 1):
        kernel = kernel + convolved(rectified(kernel))
    return rectified(kernel)


def linear_kernel(images: Tensor, layers: int) -> Tensor:
    """Return the kernel of L convolutions without a nonlinearity."""
    kernel = input_kernel(images.double())
    for _ in range(layers):
        kernel = convolved(kernel) / 2
    return kernel


KERNELS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "chain": chain_kernel,
    "shortcuts": residual_kernel,
    "linear": linear_kernel,
}


def kernel_relation(kernel: Tensor) -> Tensor:
    """Return the matrix that `relation` compares, of a network of infinite width."""
    return unit_rows(kernel.sum((2, 3)))


def limit(teacher: Tensor, student: Tensor) -> float:
    """Return the relation distance of two kernels, times B."""
    difference = kernel_relation(teacher) - kernel_relation(student)
    return len(teacher) * float(difference.square().mean())


# Networks


class Chain(nn.Module):
    """L convolutions of C channels, of which those after the first may have shortcuts."""

    def __init__(self, width: int, layers: int, shortcuts: bool, seed: int) -> None:
        super().__init__()
        self.shortcuts = shortcuts
        generator = torch.Generator().manual_seed(seed)
        inputs = [3, *[width] * (layers - 1)]
        self.layers = nn.ModuleList(
            nn.Conv2d(count, width, 3, padding=1, bias=False) for count in inputs
        )
        for layer, count in zip(self.layers, inputs, strict=True):
            nn.init.normal_(layer.weight, 0, math.sqrt(2 / (9 * count)), generator=generator)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Map images B x 3 x H x W to the last map B x C x H x W."""
        first, *others = self.layers
        x = first(x)
        for layer in others:
            x = x + layer(relu(x)) if self.shortcuts else layer(relu(x))
        return relu(x)


def measured(images: Tensor, width: int, layers: int, shortcuts: bool, seed: int) -> Tensor:
    """Return the matrix that `relation` compares, of one network."""
    return relation_matrix(Chain(width, layers, shortcuts, seed)(images)).double()


def relation_distance(teacher: Tensor, student: Tensor) -> float:
    """Return the relation distance of two such matrices, times B."""
    return len(teacher) * float((teacher - student).square().mean())


# The class gradient


def uniformity(gradient: Tensor) -> Tensor:
    """Return of each class how far all channels move together, K numbers from 0 to 1.

    The mean over channels of the signs, times the mean of the entries over their root mean square.
    """
    signs = gradient.sign().mean(1)
    return signs * gradient.mean(1) / gradient.square().mean(1).sqrt().clamp_min(1e-30)


def expected_semantic(teacher: Tensor, student: Tensor) -> float:
    """Return `semantic` to the first order, of class gradients without zeros in random channels."""
    return 2 - 2 * float((uniformity(teacher) * uniformity(student)).mean())


def observed(
    blocks: tuple[int, int, int], batch: tuple[Tensor, Tensor], seed: int, role: int, init: str
) -> Observation:
    """Observe a CIFAR ResNet with random weights."""
    classes = int(batch[1].max()) + 1
    with torch.no_grad():
        return observe(fresh(partial(CifarResNet, blocks, classes), init, seed, 0, role), *batch)

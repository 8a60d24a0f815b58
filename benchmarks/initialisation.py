"""What `semantic` and `relation` see of networks with random weights: the numbers of the page.

    python benchmarks/initialisation.py --s0 S0.csv

Letters: B images, C channels, H x W positions, L layers. The kernel of a wide network holds the
mean over channels of the product of two images' maps at one position, B x B x H x W. Networks here
are chains of 3x3 convolutions with He's weights and without biases, plain or with shortcuts, so
that their kernels have closed forms.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from statistics import fmean, stdev

import torch
from pages import markdown
from scipy import stats
from short_training import lines
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, batch_norm, relu

from diswot.data.registry import create_dataset
from diswot.knowledge.relation import relation
from diswot.knowledge.semantic import EPSILON, semantic
from diswot.models.cifar_resnet import CifarResNet
from diswot.models.initialization import STUDENT, TEACHER, fresh
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
    """L convolutions of C channels.

    Args:
        width: Channels, C.
        layers: Number of convolutions, L.
        shortcuts: Whether those after the first have shortcuts.
        seed: Seed of the weights.
        norm: Whether a batch norm with the statistics of the batch follows each convolution.
    """

    def __init__(
        self, width: int, layers: int, shortcuts: bool, seed: int, norm: bool = False
    ) -> None:
        super().__init__()
        self.shortcuts, self.norm = shortcuts, norm
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
        first, *others = map(self._normalised, self.layers)
        x = first(x)
        for layer in others:
            x = x + layer(relu(x)) if self.shortcuts else layer(relu(x))
        return relu(x)

    def _normalised(self, layer: nn.Module) -> Callable[[Tensor], Tensor]:
        if not self.norm:
            return layer
        return lambda x: batch_norm(layer(x), None, None, training=True)


def cosines(images: Tensor, chain: Chain) -> Tensor:
    """Return the cosines between the last maps of different images, B x (B - 1)."""
    rows = unit_rows(chain(images).flatten(1))
    return (rows @ rows.T)[~torch.eye(len(rows), dtype=torch.bool)].view(len(rows), -1)


def measured(images: Tensor, width: int, layers: int, shortcuts: bool, seed: int) -> Tensor:
    """Return the matrix that `relation` compares, of one network."""
    return relation_matrix(Chain(width, layers, shortcuts, seed)(images)).double()


def relation_distance(teacher: Tensor, student: Tensor) -> float:
    """Return the relation distance of two such matrices, times B."""
    return len(teacher) * float((teacher - student).square().mean())


# The class gradient


@dataclass(frozen=True)
class ClassNumbers:
    """What `semantic` sees of a class gradient whose channels come in random order, K numbers each.

    Attributes:
        nonzero: Mean square of the lengths s of the rows that `semantic` compares: the share of the
            entries that are not zero.
        uniformity: How far all channels move together: the mean of s times the mean of the entries
            over their root mean square; between 0 and 1.
        size: Mean of s times entry, over the root mean square.
    """

    nonzero: Tensor
    uniformity: Tensor
    size: Tensor


def class_numbers(gradient: Tensor) -> ClassNumbers:
    """Return these numbers of a class gradient, K x D, which may be tiny."""
    gradient = gradient.double()
    rows = gradient * torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
    s = rows / rows.abs().clamp_min(EPSILON)
    root = gradient.square().mean(1).sqrt().clamp_min(1e-150)
    uniformity = s.mean(1) * gradient.mean(1) / root
    return ClassNumbers(s.square().mean(1), uniformity, (s * gradient).mean(1) / root)


def expected_semantic(teacher: Tensor, student: Tensor) -> float:
    """Return the mean of `semantic` over all orders of the student's channels, exactly."""
    t, s = class_numbers(teacher), class_numbers(student)
    common = t.uniformity * s.uniformity
    rest = (t.size - t.uniformity) * (s.size - s.uniformity) / (teacher.shape[1] - 1)
    return float((t.nonzero + s.nonzero - 2 * (common + rest)).mean())


# The tables of the page


def resnet(
    blocks: Sequence[int], classes: int, seed: int, role: int = STUDENT, init: str = "default"
) -> nn.Module:
    """Build a CIFAR ResNet with random weights."""
    return fresh(partial(CifarResNet, tuple(blocks), classes), init, seed, 0, role)


def seen(model: nn.Module, images: Tensor, labels: Tensor) -> Observation:
    with torch.no_grad():
        return observe(model, images, labels)


def depth_table(depth: int = 8) -> str:
    """Return the distances of kernels from those of a teacher of 8 layers, times B."""
    x = smooth_images()
    cells = []
    for teacher, student in product(KERNELS, KERNELS):
        found = [limit(KERNELS[teacher](x, depth), KERNELS[student](x, each)) for each in DEPTHS]
        cells.append([f"{teacher}, {student}", *(f"{each:.4f}" for each in found)])
    return markdown(["teacher of 8 layers, student", *map(str, DEPTHS)], cells)


def width_table(depth: int = 8, draws: int = 8) -> str:
    """Return the distances of networks from a teacher of 8 layers of equal width, times B."""
    x = smooth_images()
    cells = []
    for width in (16, 64, 256):
        teachers = [measured(x, width, depth, False, seed) for seed in range(draws)]
        row = []
        for layers in (4, 8, 16):
            found = [
                relation_distance(teacher, measured(x, width, layers, False, draws + seed))
                for seed, teacher in enumerate(teachers)
            ]
            row.append(f"{fmean(found):.4f} ± {stdev(found):.4f}")
        cells.append([str(width), *row])
    limits = [limit(chain_kernel(x, depth), chain_kernel(x, each)) for each in (4, 8, 16)]
    cells.append(["no end", *(f"{each:.4f}" for each in limits)])
    return markdown(["channels", "student of 4 layers", "8", "16"], cells)


def semantic_table(seeds: int = 6) -> str:
    """Return the distances of ResNets from a fresh ResNet-14 on noise, and what is expected."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 3, 16, 16, generator=generator)
    y = torch.arange(40) % 20
    teacher = seen(resnet((2, 2, 2), 20, 0, TEACHER), x, y)
    cells = []
    for blocks in (1, 2, 4, 6):
        found, expected, uniform, relations = [], [], [], []
        for seed in range(seeds):
            student = seen(resnet((blocks,) * 3, 20, seed), x, y)
            found.append(float(semantic(teacher, student)))
            expected.append(expected_semantic(teacher.class_gradient, student.class_gradient))
            uniform.append(float(class_numbers(student.class_gradient).uniformity.mean()))
            relations.append(len(x) * float(relation(teacher, student)))
        spreads = [f"{fmean(each):.3f} ± {stdev(each):.3f}" for each in (found, relations)]
        name, means = f"ResNet-{6 * blocks + 2}", [fmean(expected), fmean(uniform)]
        cells.append([name, spreads[0], *(f"{mean:.3f}" for mean in means), spreads[1]])
    heads = ["student", "semantic", "expected", "uniformity", "relation x B"]
    return markdown(heads, cells)


def s0_table(path: Path) -> str:
    """Return what `semantic` depends on in S0: taus over its 64 students, for three draws.

    The batch is noise, 64 images of 100 classes, and the teacher is ResNet-56 unless it is named.

    Args:
        path: Table with the columns `blocks1` to `blocks3` and `distilled_acc`.
    """
    rows = lines(path)
    blocks = [[int(row[f"blocks{i}"]) for i in (1, 2, 3)] for row in rows]
    accuracy = [float(row["distilled_acc"]) for row in rows]
    batch = create_dataset("noise", num_classes=100, img_size=32).batch(64)
    cells = []
    for init in ("default", "kaiming", "gaussian"):
        teachers = [seen(resnet((n,) * 3, 100, 0, TEACHER, init), *batch) for n in (3, 9)]
        students = [seen(resnet(each, 100, 0, init=init), *batch) for each in blocks]
        small, large = ([float(semantic(t, s)) for s in students] for t in teachers)
        gradients = [s.class_gradient for s in students]
        expected = [expected_semantic(teachers[1].class_gradient, g) for g in gradients]
        own = [float(class_numbers(g).uniformity.mean()) for g in gradients]
        pairs = [(large, expected), (small, large), (large, own), (large, accuracy),
                 (own, accuracy), *((large, [b[i] for b in blocks]) for i in range(3))]  # fmt: skip
        taus = [f"{float(stats.kendalltau(*pair).statistic):.2f}" for pair in pairs]
        cells.append([init, *taus])
    heads = ["weights", "expected", "teacher ResNet-20", "uniformity", "accuracy",
             "uniformity with accuracy", "blocks 1", "blocks 2", "blocks 3"]  # fmt: skip
    return markdown(heads, cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--s0", type=Path, help="accuracies of S0: blocks1 to 3, distilled_acc")
    options = parser.parse_args()
    print(depth_table(), width_table(), semantic_table(), sep="\n\n")
    if options.s0 is not None:
        print(f"\n{s0_table(options.s0)}")


if __name__ == "__main__":
    main()

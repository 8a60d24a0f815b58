"""Tiny classifiers with awkward habits. All take 3 x 8 x 8 images and know five classes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, relu_

from diswot.observation.observe import Observation

PIXELS = 8
CLASSES = 5


def seeded(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """Build a model from its own seed; the global random state stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def batch(size: int = 6, pixels: int = PIXELS, classes: int = CLASSES) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(size)
    images = torch.randn(size, 3, pixels, pixels, generator=generator)
    return images, torch.randint(classes, (size,), generator=generator)


def stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


class LinearHead(nn.Module):
    """Two stages, global pooling, one linear layer: the plain case."""

    def __init__(self) -> None:
        super().__init__()
        self.block1, self.block2 = stage(3, 4, 1), stage(4, 6, 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(6, CLASSES)

    def features(self, images: Tensor) -> Tensor:
        return self.pool(self.block2(self.block1(images))).flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.features(images))


class FlattenedGrid(nn.Module):
    """The classifier sees a 2 x 2 grid, not its mean."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(stage(3, 4, 2), stage(4, 6, 2))
        self.fc = nn.Linear(6 * 2 * 2, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.body(images).flatten(1))


class ClassToken(nn.Module):
    """A transformer of one layer; its classifier sees the class token alone."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 6, 2, 2)
        self.token = nn.Parameter(torch.randn(1, 1, 6))
        self.norm1, self.norm2 = nn.LayerNorm(6), nn.LayerNorm(6)
        self.attention = nn.MultiheadAttention(6, 2, dropout=0.5, batch_first=True)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat((self.token.expand(len(images), -1, -1), patches), 1)
        normal = self.norm1(tokens)
        tokens = tokens + self.attention(normal, normal, normal)[0]
        return self.head(self.norm2(tokens)[:, 0])


class TwoHeads(LinearHead):
    """The mean of two linear heads, as in distilled transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.fc_dist = nn.Linear(6, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        pooled = self.features(images)
        return (self.fc(pooled) + self.fc_dist(pooled)) / 2


class ScaledHead(LinearHead):
    """Logits are changed in place after the classifier, so that the closed form would lie."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).mul_(3)


class WeightNormHead(LinearHead):
    """The classifier's weight is no parameter but computed from two."""

    def __init__(self) -> None:
        super().__init__()
        nn.utils.parametrizations.weight_norm(self.fc)


class ConvClassifier(nn.Module):
    """A 1 x 1 convolution gives a map of scores, which is pooled, as in SqueezeNet."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(stage(3, 4, 1), stage(4, 6, 2))
        self.dropout = nn.Dropout(0.5)
        self.scores = nn.Conv2d(6, CLASSES, 1)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, images: Tensor) -> Tensor:
        scores = self.scores(self.dropout(self.features(images)))
        return self.pool(self.relu(scores)).flatten(1)


class PooledConvClassifier(nn.Module):
    """A 1 x 1 convolution after global pooling stands for the linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.block1, self.block2 = stage(3, 4, 1), stage(4, 6, 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Conv2d(6, CLASSES, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.pool(self.block2(self.block1(images)))).flatten(1)


class Noisy(LinearHead):
    """Batch statistics, dropout, and noise that no mode turns off."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def forward(self, images: Tensor) -> Tensor:
        pooled = self.features(images)
        return self.fc(self.dropout(pooled + 0.1 * torch.randn_like(pooled)))


class Broken(LinearHead):
    """Raises half-way, after a stage that has statistics and after drawing noise."""

    def forward(self, images: Tensor) -> Tensor:
        self.block1(images + torch.randn_like(images))
        raise RuntimeError("broken half-way")


class Overwriting(nn.Module):
    """A function writes over the map that ends the first stage."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 4, 3, 1, 1), nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 6, 3, 2, 1)
        self.fc = nn.Linear(6, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.conv2(relu_(self.norm1(self.conv1(images)))).mean((2, 3)))


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = stage(3, 4, 1)
        self.stages = nn.ModuleList([Residual(4, 5, 1), Residual(5, 6, 2), Residual(6, 8, 2)])

    def forward(self, images: Tensor) -> Tensor:
        features = self.stem(images)
        for block in self.stages:
            features = block(features)
        return features


class Residual(nn.Module):
    """Expands at the old resolution before it shrinks, like an inverted residual."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.expand, self.reduce = stage(inputs, 9, 1), stage(9, outputs, stride)
        self.skip = nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, features: Tensor) -> Tensor:
        return self.reduce(self.expand(features)) + self.skip(features)


class VectorHead(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(features), nn.Linear(features, CLASSES)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear(self.norm(features.mean((2, 3))))


class Nested(nn.Module):
    """Backbone, neck and head, as a user would write it."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.neck, self.head = Backbone(), nn.Conv2d(8, 7, 1), VectorHead(7)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.neck(self.backbone(images)))


class StemAndStages(nn.Module):
    """A stem beside a list of stages, the first of which keeps the stem's resolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = stage(3, 4, 1)
        self.stages = nn.Sequential(Residual(4, 5, 1), Residual(5, 6, 2), Residual(6, 8, 2))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.conv_head = nn.Conv2d(8, 10, 1)
        self.classifier = nn.Linear(10, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        pooled = self.conv_head(self.pool(self.stages(self.stem(images))))
        return self.classifier(pooled.flatten(1))


class Squeeze(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc1, self.fc2 = nn.Conv2d(channels, 2, 1), nn.Conv2d(2, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        return features * self.fc2(self.fc1(self.pool(features)).relu()).sigmoid()


class SqueezeExcite(nn.Module):
    """Side branches of 1 x 1 maps in each block."""

    def __init__(self) -> None:
        super().__init__()
        self.block1, self.squeeze1 = stage(3, 4, 1), Squeeze(4)
        self.block2, self.squeeze2 = stage(4, 6, 2), Squeeze(6)
        self.fc = nn.Linear(6, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        features = self.squeeze1(self.block1(images))
        return self.fc(self.squeeze2(self.block2(features)).mean((2, 3)))


class ChannelsLast(nn.Module):
    """Maps are B x H x W x C."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.merge = nn.Linear(12, 6), nn.Linear(24, 10)
        self.fc = nn.Linear(10, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        features = self.patches(fold(images.permute(0, 2, 3, 1)))
        return self.fc(self.merge(fold(features)).mean((1, 2)))


def fold(features: Tensor) -> Tensor:
    """Put each 2 x 2 square of a B x H x W x C map into the channels."""
    rows, columns = features[:, ::2], features[:, 1::2]
    parts = (rows[:, :, ::2], rows[:, :, 1::2], columns[:, :, ::2], columns[:, :, 1::2])
    return torch.cat(parts, 3)


class FixedGrid(nn.Module):
    """Pools to a grid larger than its last map, as VGG does with small images."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(stage(3, 4, 2), stage(4, 6, 2))
        self.pool = nn.AdaptiveAvgPool2d(3)
        self.fc = nn.Linear(6 * 3 * 3, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.pool(self.features(images)).flatten(1))


class TalkingHeads(nn.Module):
    """Attention among the positions of a map; a convolution mixes its B x 2 x N x N matrices."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.talk, self.project = nn.Conv2d(2, 2, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        heads = features.flatten(2).unflatten(1, (2, -1))
        weights = self.talk(heads.transpose(2, 3) @ heads).softmax(3)
        return self.project((heads @ weights).flatten(1, 2).view_as(features))


class TupleBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.reduce, self.attention = nn.Conv2d(4, 6, 4, 4), TalkingHeads(6)

    def forward(self, features: Tensor) -> tuple[Tensor, torch.Size]:
        features = self.reduce(features)
        features = features + self.attention(features)
        return features, features.shape


class AttentionMatrices(nn.Module):
    """Matrices of attention look like maps; a block returns a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block, self.fc = stage(3, 4, 1), TupleBlock(), nn.Linear(6, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.block(self.stem(images))[0].mean((2, 3)))


class InstanceStatistics(nn.Module):
    """Instance normalisation that tracks running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.InstanceNorm2d(4, affine=True, track_running_stats=True)
        self.fc = nn.Linear(4, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.norm(self.conv(images)).square().mean((2, 3)))


class NoMap(nn.Module):
    """A perceptron: nothing in it looks like the image."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.fc = nn.Linear(3 * PIXELS * PIXELS, 7), nn.Linear(7, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.hidden(images.flatten(1)))


class NoClassifier(LinearHead):
    """Cosines with prototypes give the logits."""

    def __init__(self) -> None:
        super().__init__()
        del self.fc
        self.prototypes = nn.Parameter(torch.randn(CLASSES, 6))

    def forward(self, images: Tensor) -> Tensor:
        return cosine_similarity(self.features(images)[:, None], self.prototypes, 2)


class BuffersOnly(nn.Module):
    """Nothing to train; nothing that is a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(CLASSES, 3))

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)) @ self.weight.T


class Returning(LinearHead):
    """Gives its logits in the wrapping that it was given."""

    def __init__(self, wrap: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.wrap = wrap

    def forward(self, images: Tensor) -> object:
        return self.wrap(super().forward(images))


class ByHand(nn.Module):
    """One-channel images to two maps, x and -x, rectified; see the numbers in test_observe."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(1, 2, 1, bias=False), nn.ReLU()
        self.fc = nn.Linear(2, 2)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
            self.fc.weight.copy_(slope * torch.eye(2))
            self.fc.bias.zero_()

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.relu(self.conv(images)).mean((2, 3)))


def observation(
    seed: int,
    *,
    size: int = 4,
    classes: int = CLASSES,
    channels: int = 6,
    grid: int = 2,
    dtype: torch.dtype = torch.float32,
) -> Observation:
    """Made-up numbers of a consistent shape: rectified maps, a third of the channels unused."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(size, channels, grid, grid, generator=generator, dtype=dtype).relu()
    logits = 3 * torch.randn(size, classes, generator=generator, dtype=dtype)
    labels = torch.randint(classes, (size,), generator=generator)
    gradient = torch.randn(classes, channels, generator=generator, dtype=dtype)
    gradient[:, 2::3] = 0
    return Observation((maps,), maps, maps.mean((2, 3)), logits, labels, gradient)

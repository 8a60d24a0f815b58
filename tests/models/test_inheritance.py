"""What students inherit from teachers: known channels, known blocks, and unchanged functions."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import relu
from toys import WeightNormHead, seeded

import diswot
from diswot import Inheritance, UserError, inherit
from diswot.models.cifar_resnet import CifarResNet
from diswot.models.hidden_channels import Graphs, hidden_channels
from diswot.models.registry import create_teacher
from diswot.models.weighted_layers import outline
from diswot.spaces.registry import build_network, create_space

CLASSES = 5


def trained(build: Callable[[], nn.Module]) -> nn.Module:
    """Return a network in evaluation mode whose norms differ from channel to channel."""
    model = seeded(build, 1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.ndim == 1 and value.is_floating_point():
                value.copy_(0.5 + torch.rand(value.shape, generator=generator))
            elif "pos" in name or "token" in name:
                value.copy_(torch.randn(value.shape, generator=generator))
    return model.eval()


def images(count: int = 4, size: int = 32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, size, size, generator=generator)


def source(result: Inheritance, module: str) -> str:
    (row,) = (row for row in result.rows if row.module == module)
    return row.source


def two_layers(hidden: int, classes: int = 2) -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, hidden), nn.ReLU(), nn.Linear(hidden, classes))


class LinearResidual(nn.Module):
    """A residual network without non-linearities: stem, blocks x + B A x, classifier."""

    def __init__(self, width: int, hidden: int, depth: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.blocks = nn.Sequential(*(self.Block(width, hidden) for _ in range(depth)))
        self.fc = nn.Linear(width, CLASSES)

    class Block(nn.Module):
        def __init__(self, width: int, hidden: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(width, hidden, 3, padding=1, bias=False)
            self.conv2 = nn.Conv2d(hidden, width, 1, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = x + self.conv2(self.conv1(x))
            return y

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.blocks(self.stem(x)).mean((2, 3)))
        return logits


class TwoMaps(nn.Module):
    """Two maps with hidden channels between them, unless `divided`."""

    def __init__(self, note: Tensor | None = None, divided: bool = False) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1)
        self.note, self.divided = note, divided

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(x)
        return self.conv2(hidden) + hidden.sum() if self.divided else self.conv2(hidden)


class FlatHead(nn.Module):
    """Two stages of residual blocks; the classifier reads a flattened map of S x S positions."""

    def __init__(self, widths: Sequence[int], depth: int, side: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, widths[0], 3, padding=1)
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(self.Block(widths[i], widths[j]) for i, j in [(a, b), *[(b, b)] * depth])
            )
            for a, b in ((0, 0), (0, 1))
        )
        self.pool = nn.AdaptiveAvgPool2d(side)
        self.linear = nn.Linear(widths[1] * side**2, CLASSES)

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
            self.bn1 = nn.BatchNorm2d(outputs)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(outputs)
            self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            y = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))
            return relu(self.shortcut(x) + y)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        logits: Tensor = self.linear(self.pool(x).flatten(1))
        return logits


WHOLE = (
    "resnet20",
    "timm:mobilenetv2_050",
    "torchvision:mobilenet_v3_small",
    "timm:regnety_002",
    "timm:swin_tiny_patch4_window7_224",
    "torchvision:squeezenet1_1",
    "timm:levit_128s",
)


class TestWhole:
    @pytest.mark.parametrize("name", WHOLE[:4])
    def test_equal_architecture_has_the_teachers_logits(self, name: str) -> None:
        self._check(lambda: create_teacher(name, CLASSES, 32))

    def test_equal_transformer_has_the_teachers_logits(self) -> None:
        self._check(lambda: vit(24, 3, size=32))

    def _check(self, build: Callable[[], nn.Module]) -> None:
        teacher, student, x = trained(build), seeded(build, 3).eval(), images()
        before = copy.deepcopy(teacher.state_dict())
        result = inherit(teacher, student, [x])
        assert result.share == 1
        assert result.images == 0
        assert torch.equal(student(x), teacher(x))
        assert all(torch.equal(value, before[n]) for n, value in teacher.state_dict().items())

    def test_wider_student_computes_what_the_teacher_does(self) -> None:
        teacher = trained(lambda: CifarResNet((2, 1, 2), CLASSES, (4, 8, 8)))
        student = seeded(lambda: CifarResNet((2, 1, 2), CLASSES, (6, 12, 16))).eval()
        result = inherit(teacher, student)
        assert 0.1 < result.share < 0.6
        torch.testing.assert_close(student(images()), teacher(images()), rtol=1e-4, atol=1e-4)


class TestChannels:
    def test_even(self) -> None:
        teacher, student = seeded(lambda: two_layers(6)), seeded(lambda: two_layers(3), 1)
        inherit(teacher, student, channels="even")
        assert torch.equal(student[0].weight, teacher[0].weight[[0, 2, 4]])
        assert torch.equal(student[0].bias, teacher[0].bias[[0, 2, 4]])
        assert torch.equal(student[2].weight, teacher[2].weight[:, [0, 2, 4]])
        assert torch.equal(student[2].bias, teacher[2].bias)

    def test_norm(self) -> None:
        teacher, student = two_layers(6), two_layers(3)
        with torch.no_grad():
            for number, strength in enumerate([1.0, 5.0, 0.5, 4.0, 6.0, 2.0]):
                teacher[0].weight[number] = strength
                teacher[2].weight[:, number] = strength
        inherit(teacher, student, channels="norm")
        assert torch.equal(student[0].weight, teacher[0].weight[[1, 3, 4]])
        assert torch.equal(student[2].weight, teacher[2].weight[:, [1, 3, 4]])

    def test_hidden_channels_are_chosen_block_by_block(self) -> None:
        teacher = seeded(lambda: LinearResidual(4, 6))
        student = seeded(lambda: LinearResidual(4, 2), 1)
        with torch.no_grad():
            for block, strong in zip(teacher.blocks, ([0, 5], [2, 3]), strict=True):
                block.conv1.weight[strong] *= 10
        inherit(teacher, student, channels="norm")
        for number, strong in enumerate(([0, 5], [2, 3])):
            own, given = student.blocks[number], teacher.blocks[number]
            assert torch.equal(own.conv1.weight, given.conv1.weight[strong])
            assert torch.equal(own.conv2.weight, given.conv2.weight[:, strong])

    def test_blocks_of_one_form_are_traced_once(self) -> None:
        blocks = [TwoMaps(), TwoMaps(), TwoMaps(divided=True), TwoMaps(torch.zeros(1))]
        layers = {layer.module: layer for layer in outline(nn.Sequential(*blocks)).layers}
        graphs: Graphs = {}
        found = [hidden_channels(block, layers, graphs) for block in blocks]
        assert [len(paths) for paths in found] == [1, 1, 0, 1]
        for block, paths in zip(blocks, found, strict=True):
            for path in paths:
                assert path.writer.module is block.conv1 and path.reader.module is block.conv2
        assert len(graphs) == 2  # a tensor cannot be compared, so its block has no form

    @pytest.mark.parametrize("channels", ["even", "norm"])
    def test_dropped_channels_are_dropped_along_the_residual_path(self, channels: str) -> None:
        teacher = seeded(lambda: LinearResidual(8, 8))
        student = seeded(lambda: LinearResidual(4, 6), 1)
        inherit(teacher, student, channels=channels)
        kept = [
            int((teacher.stem.weight == line).flatten(1).all(1).nonzero())
            for line in student.stem.weight
        ]
        with torch.no_grad():
            gone = [number for number in range(8) if number not in kept]
            teacher.stem.weight[gone] = 0
            for own, block in zip(student.blocks, teacher.blocks, strict=True):
                inside = [
                    int((block.conv1.weight[:, kept] == line).flatten(1).all(1).nonzero())
                    for line in own.conv1.weight
                ]
                hidden = [number for number in range(8) if number not in inside]
                block.conv1.weight[hidden] = 0
                block.conv2.weight[gone] = 0
        torch.testing.assert_close(student(images()), teacher(images()))

    def test_whole_heads(self) -> None:
        teacher, student = vit(24, 3), vit(16, 2)
        inherit(teacher, student, channels="even")
        given, own = teacher.blocks[0].attn, student.blocks[0].attn
        stream = [0, 1, 3, 4, 6, 7, 9, 10, 12, 13, 15, 16, 18, 19, 21, 22]
        heads = list(range(16))  # heads 0 and 1 of 0, 1, 2
        lines = [part * 24 + channel for part in range(3) for channel in heads]
        assert torch.equal(own.qkv.weight, given.qkv.weight[lines][:, stream])
        assert torch.equal(own.qkv.bias, given.qkv.bias[lines])
        assert torch.equal(own.proj.weight, given.proj.weight[stream][:, heads])

    def test_strong_heads(self) -> None:
        teacher, student = vit(24, 3), vit(24, 2, attn_width=16)
        with torch.no_grad():
            for part in range(3):
                teacher.blocks[1].attn.qkv.weight[part * 24 : part * 24 + 8] /= 10
        inherit(teacher, student, channels="norm")
        given, own = teacher.blocks[1].attn, student.blocks[1].attn
        assert torch.equal(own.proj.weight, given.proj.weight[:, 8:])
        assert torch.equal(own.qkv.weight[:16], given.qkv.weight[8:24])

    def test_separate_queries_keys_and_values(self) -> None:
        teacher, student = vit(24, 3), SeparateViT(vit(16, 2))
        inherit(teacher, student, channels="even")
        fused = vit(16, 2)
        inherit(teacher, fused, channels="even")
        for number, block in enumerate(student.blocks):
            parts = [block.attn.query, block.attn.key, block.attn.value]
            weight = torch.cat([part.weight for part in parts])
            assert torch.equal(weight, fused.blocks[number].attn.qkv.weight)

    def test_flattened_map(self) -> None:
        teacher = seeded(lambda: FlatHead((4, 8), 1, 2))
        student = seeded(lambda: FlatHead((4, 4), 1, 2), 1)
        inherit(teacher, student, channels="even")
        lines = teacher.linear.weight.view(CLASSES, 8, 4)[:, [0, 2, 4, 6]]
        assert torch.equal(student.linear.weight, lines.flatten(1))

    @pytest.mark.parametrize(("given", "own"), [(2, 1), (1, 2)])
    def test_flattened_map_of_another_size(self, given: int, own: int) -> None:
        """The classifier gives the same for maps that are constant over the positions."""
        teacher = seeded(lambda: FlatHead((4, 8), 1, given))
        student = seeded(lambda: FlatHead((4, 8), 1, own), 1)
        inherit(teacher, student)
        mean = torch.rand(3, 8, 1)
        flat = [mean.expand(-1, -1, side**2).flatten(1) for side in (given, own)]
        torch.testing.assert_close(student.linear(flat[1]), teacher.linear(flat[0]))


class TestBlocks:
    def test_relative_depth(self) -> None:
        teacher = seeded(lambda: CifarResNet((5, 5, 7), CLASSES, (4, 4, 8)))
        student = seeded(lambda: CifarResNet((3, 5, 3), CLASSES, (4, 4, 8)), 1)
        result = inherit(teacher, student)
        found = {f"{stage}.{i}": source(result, f"layer{stage}.{i}.conv1") for stage, i in [
            (1, 0), (1, 1), (1, 2), (3, 0), (3, 1), (3, 2)
        ]}  # fmt: skip
        assert list(found.values()) == [
            *("layer1.0.conv1", "layer1.2.conv1", "layer1.4.conv1"),
            *("layer3.0.conv1", "layer3.3.conv1", "layer3.6.conv1"),
        ]
        assert torch.equal(student.layer3[1].conv2.weight, teacher.layer3[3].conv2.weight)
        assert torch.equal(
            student.layer3[0].shortcut[0].weight, teacher.layer3[0].shortcut[0].weight
        )

    def test_a_block_that_changes_the_shape_is_the_first_alone(self) -> None:
        teacher = seeded(lambda: CifarResNet((1, 1, 2), CLASSES))
        student = seeded(lambda: CifarResNet((3, 2, 5), CLASSES), 1)
        fresh = student.layer2[1].conv1.weight.clone()
        result = inherit(teacher, student)
        assert source(result, "layer1.2.conv1") == "layer1.0.conv1"
        assert source(result, "layer2.1.conv1") == ""
        assert [source(result, f"layer3.{i}.conv1")[:8] for i in range(5)] == [
            "layer3.0", *["layer3.1"] * 4
        ]  # fmt: skip
        assert torch.equal(student.layer2[1].conv1.weight, fresh)

    def test_flat_list_of_blocks(self) -> None:
        """The stages of torchvision's MobileNetV2 stand in one list, those of timm's in many."""
        teacher = create_teacher("torchvision:mobilenet_v2", CLASSES, 32)
        student = create_teacher("timm:mobilenetv2_100", CLASSES, 32)
        result = inherit(teacher, student)
        assert result.share == 1
        assert source(result, "blocks.5.2.conv_dw") == "features.16.conv.1.0"
        assert source(result, "conv_head") == "features.18.0"


class Named(NamedTuple):
    """A teacher and a space, and one layer of a student that is known to inherit."""

    teacher: str
    space: str
    params: dict[str, Any]
    layer: str
    source: str


def of_stages(count: int, **values: Any) -> dict[str, Any]:
    return {f"{name}_{i}": value for i in range(1, count + 1) for name, value in values.items()}


RESNET = of_stages(4, block="basic", kernel=3, depth=1) | {"stages": 4}
RESNET |= {f"width_{i}": 2 ** (i + 4) for i in range(1, 5)}
MOBILE = of_stages(6, depth=2, kernel=3, expand=3, se=False) | {"width": 0.35}
VIT = {"depth": 4, "heads": 2, "head_width": 32, "mlp_ratio": 2.0}
AUTOFORMER = of_stages(12, heads=3, ratio=3.5) | {"depth": 12, "hidden_dim": 192}
S0 = {"blocks1": 3, "blocks2": 5, "blocks3": 1}
WIDE = {"blocks1": 2, "blocks2": 9, "blocks3": 3, "width1": 8, "width2": 16, "width3": 64}
CONV = "stages.1.0.conv2_kxk.conv"
PAIRS = [
    Named("resnet56", "s0", S0, "layer2.1.conv1", "layer2.2.conv1"),
    Named("resnet56", "cifar_resnet", WIDE, "layer3.1.conv1", "layer3.4.conv1"),
    Named("torchvision:resnet18", "imagenet_resnet", RESNET, CONV, "layer2.0.conv2"),
    Named("timm:resnet34", "imagenet_resnet", RESNET, CONV, "layer2.0.conv2"),
    Named(
        "torchvision:mobilenet_v2",
        "mobilenet",
        MOBILE,
        "blocks.3.1.conv_pw",
        "features.10.conv.0.0",
    ),
    Named("timm:mobilenetv2_100", "mobilenet", MOBILE, "blocks.3.1.conv_pw", "blocks.3.3.conv_pw"),
    Named("timm:deit_tiny_patch16_224", "vit", VIT, "blocks.1.mlp.fc1", "blocks.4.mlp.fc1"),
    Named("timm:vit_tiny_patch16_224", "vit", VIT, "blocks.2.norm1", "blocks.7.norm1"),
    Named("timm:deit_tiny_patch16_224", "autoformer", AUTOFORMER, "head", "head"),
]


class TestPairs:
    @pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair.teacher}-{pair.space}")
    def test_pair(self, pair: Named) -> None:
        """More than half is inherited, and one layer's weights are the known slice."""
        teacher = create_teacher(pair.teacher, CLASSES, 32)
        student = build_network(create_space(pair.space, CLASSES, 32), pair.params)
        result = inherit(teacher, student, [images()], channels="even")
        assert result.share > 0.5
        assert source(result, pair.layer) == pair.source
        own = student.get_submodule(pair.layer).weight
        given = teacher.get_submodule(pair.source).weight
        for dim, (size, count) in enumerate(zip(given.shape[:2], own.shape[:2], strict=True)):
            lines = [number * size // count for number in range(count)]
            given = given.index_select(dim, torch.tensor(lines))
        assert torch.equal(own, given)

    def test_transformer_of_torchvision(self) -> None:
        from torchvision.models import VisionTransformer

        teacher = seeded(lambda: VisionTransformer(16, 4, 3, 3, 24, 96, num_classes=CLASSES))
        student = vit(24, 3)
        result = inherit(teacher, student)
        assert result.share == 1
        assert source(result, "blocks.1.attn.proj") == (
            "encoder.layers.encoder_layer_2.self_attention.out_proj"
        )
        attention = teacher.encoder.layers[2].self_attention
        assert torch.equal(student.blocks[1].attn.qkv.weight, attention.in_proj_weight)

    def test_blocks_of_the_same_form(self) -> None:
        teacher = trained(lambda: FlatHead((8, 16), 5, 2))
        student = seeded(lambda: FlatHead((8, 16), 3, 2))
        result = inherit(teacher, student)
        assert result.share == 1
        assert source(result, "stages.1.2.bn2") == "stages.1.3.bn2"
        assert source(result, "stages.1.0.shortcut") == "stages.1.0.shortcut"


class TestEmbeddings:
    def test_positions_are_resized(self) -> None:
        """A plane over the positions is that plane again, away from the edges."""
        teacher, student = vit(8, 2, size=32), vit(8, 2, size=16)
        with torch.no_grad():
            teacher.pos_embed[0, 1:] = torch.arange(8.0).repeat_interleave(8)[:, None]
            teacher.pos_embed[0, 0] = -1
        inherit(teacher, student)
        found = student.pos_embed[0, 1:].view(4, 4, 8)
        assert torch.equal(student.pos_embed[0, 0], torch.full((8,), -1.0))
        torch.testing.assert_close(found[1:3, 0, 0], torch.tensor([2.5, 4.5]), rtol=0.02, atol=0.02)
        assert torch.equal(student.cls_token, teacher.cls_token)

    def test_student_without_a_class_token(self) -> None:
        teacher = vit(8, 2)
        student = vit(8, 2, class_token=False, global_pool="avg")
        inherit(teacher, student)
        assert torch.equal(student.pos_embed, teacher.pos_embed[:, 1:])

    def test_patches_are_resized(self) -> None:
        """A patch of a constant image, twice as large, has the embedding that it had."""
        teacher, student = vit(8, 2), vit(8, 2, size=32, patch_size=8)
        inherit(teacher, student)
        given = teacher.patch_embed(torch.ones(1, 3, 16, 16))
        own = student.patch_embed(torch.ones(1, 3, 32, 32))
        torch.testing.assert_close(own, given, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize(("given", "own"), [(7, 3), (3, 5)])
    def test_kernels_keep_their_centres(self, given: int, own: int) -> None:
        teacher = nn.Sequential(nn.Conv2d(3, 2, given), nn.Flatten(), nn.Linear(2, 2))
        student = nn.Sequential(nn.Conv2d(3, 2, own), nn.Flatten(), nn.Linear(2, 2))
        row = inherit(teacher, student).rows[0]
        small, large = sorted((student[0].weight, teacher[0].weight), key=lambda w: w.shape[2])
        edge = (large.shape[2] - small.shape[2]) // 2
        assert torch.equal(large[:, :, edge:-edge, edge:-edge], small)
        assert row.share == pytest.approx((2 * 3 * min(given, own) ** 2 + 2) / row.params)


class TestClasses:
    def test_by_name(self) -> None:
        teacher, student = two_layers(4, 3), two_layers(4, 4)
        fresh = student[2].weight[2].clone()
        given, own = ["cat", "dog", "cow"], ["cow", "cat", "hen", "dog"]
        result = inherit(teacher, student, teacher_classes=given, student_classes=own)
        assert torch.equal(student[2].weight[[0, 1, 3]], teacher[2].weight[[2, 0, 1]])
        assert torch.equal(student[2].weight[2], fresh)
        assert result.rows[-1].share == 0.75

    def test_other_classes_without_names(self) -> None:
        result = inherit(two_layers(4, 3), two_layers(4, 4))
        assert [row.share for row in result.rows] == [1, 0]

    def test_names_that_do_not_fit(self) -> None:
        teacher, student = two_layers(4, 3), two_layers(4, 4)
        with pytest.raises(UserError, match="2 class names for the 3 classes of the teacher"):
            inherit(teacher, student, teacher_classes=list("ab"), student_classes=list("abcd"))
        with pytest.raises(UserError, match="classes of both"):
            inherit(teacher, student, teacher_classes=list("abc"))


class TestStatistics:
    def test_estimated_again(self) -> None:
        """The statistics are those of all images; modes and momenta stay."""
        teacher = trained(lambda: CifarResNet((2, 1, 1), CLASSES, (4, 4, 4)))
        student = seeded(lambda: CifarResNet((1, 1, 1), CLASSES, (4, 4, 4)))
        student.layer1.eval()
        modes = [module.training for module in student.modules()]
        batches = [images(seed=seed) for seed in range(3)]
        result = inherit(teacher, student, ((batch, torch.zeros(4)) for batch in batches))
        assert result.images == 12
        maps = torch.cat([student.conv1(batch) for batch in batches])
        torch.testing.assert_close(student.bn1.running_mean, maps.mean((0, 2, 3)))
        assert [module.training for module in student.modules()] == modes
        assert student.bn1.momentum == 0.1

    def test_without_batches_they_are_the_teachers(self) -> None:
        teacher = trained(lambda: CifarResNet((2, 1, 1), CLASSES, (4, 4, 4)))
        student = seeded(lambda: CifarResNet((1, 1, 1), CLASSES, (2, 4, 4)))
        assert inherit(teacher, student, channels="even").images == 0
        assert torch.equal(student.bn1.running_var, teacher.bn1.running_var[[0, 2]])


class TestResult:
    def test_table(self) -> None:
        pytest.importorskip("pandas")
        result = inherit(two_layers(4, 3), two_layers(4, 4), channels="even")
        table = result.to_dataframe()
        assert list(table.index) == ["0", "2"]
        assert list(table["source"]) == ["0", ""]
        assert result.share == pytest.approx((table["params"] * table["share"]).sum() / 36)
        assert repr(result) == "Inheritance(44.4% of 36 parameters, 1 of 2 layers, channels 'even')"
        assert "<td>16</td><td>100.0%</td>" in result._repr_html_()

    def test_public(self) -> None:
        assert {"inherit", "Inheritance"} <= set(diswot.__all__)


class TestRefused:
    def test_nothing_fits(self) -> None:
        teacher = seeded(lambda: CifarResNet((1, 1, 1), 10))
        student = nn.Sequential(nn.Flatten(), nn.Linear(12, CLASSES))
        with pytest.raises(UserError, match=r"can inherit nothing.*the student is linear"):
            inherit(teacher, student)

    def test_itself(self) -> None:
        model = two_layers(4)
        with pytest.raises(UserError, match="from itself"):
            inherit(model, model)

    def test_unknown_choice(self) -> None:
        with pytest.raises(UserError, match="unknown choice of channels 'l1'"):
            inherit(two_layers(4), two_layers(3), channels="l1")

    def test_weights_that_are_computed(self) -> None:
        """Weight norm has no weight of its own; its parameters are taken where sizes agree."""
        teacher, student = seeded(WeightNormHead), seeded(WeightNormHead, 1)
        assert inherit(teacher, student).share == 1


class SeparateViT(nn.Module):
    """A vision transformer of timm whose queries, keys and values are separate layers."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.patch_embed, self.blocks, self.norm = model.patch_embed, model.blocks, model.norm
        self.cls_token, self.pos_embed, self.head = model.cls_token, model.pos_embed, model.head
        for block in self.blocks:
            block.attn = self.Attention(block.attn.num_heads, block.attn.qkv.in_features)

    class Attention(nn.Module):
        def __init__(self, heads: int, width: int) -> None:
            super().__init__()
            self.num_heads = heads
            self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
            self.proj = nn.Linear(width, width)


def vit(width: int, heads: int, size: int = 16, attn_width: int = 0, **options: Any) -> Any:
    from timm.layers.attention import Attention
    from timm.models.vision_transformer import VisionTransformer

    class Slim(Attention):
        def __init__(self, dim: int, num_heads: int, **more: Any) -> None:
            super().__init__(dim, num_heads, attn_head_dim=attn_width // num_heads, **more)

    if attn_width:
        options["attn_layer"] = Slim
    settings = {"img_size": size, "patch_size": 4, "depth": 2, "num_classes": CLASSES} | options
    return VisionTransformer(embed_dim=width, num_heads=heads, **settings)

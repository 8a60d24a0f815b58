from __future__ import annotations

import json
import runpy
from functools import partial
from pathlib import Path

import pytest
import torch
from commands import Run
from timm.models.vision_transformer import VisionTransformer
from torchvision.models import VisionTransformer as Torchvision

from diswot.costs.counts import count_params
from diswot.errors import UserError
from diswot.models.inheritance import inherit
from diswot.models.initialization import fresh
from diswot.models.registry import create_teacher
from diswot.models.weightless import Weightless
from diswot.spaces import subnet
from diswot.spaces.registry import Params, build_network, create_space
from diswot.spaces.trials import EnumeratingTrial, FixedParamsTrial

SMALL: Params = {"depth_1": 1, "width_1": 0.5, "depth_2": 2, "width_2": 0.25, "depth_3": 3}
SMALL |= {"width_3": 1.0}
VIT = """
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torchvision.models import VisionTransformer as Another

def vit(num_classes, img_size):
    return VisionTransformer(
        img_size, 8, num_classes=num_classes, embed_dim=32, depth=4, num_heads=4
    )

def torchvision_vit(num_classes, img_size):
    return Another(img_size, 8, 2, 4, 32, 64, num_classes=num_classes)

def swin(num_classes, img_size):
    return SwinTransformer(
        img_size, 2, num_classes=num_classes, embed_dim=16, depths=(2, 2), num_heads=(2, 4),
        window_size=4,
    )
"""


@pytest.fixture
def vit(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(VIT)
    return f"{tmp_path}/mine.py:vit"


def largest(name: str, size: int = 32) -> Params:
    trial = EnumeratingTrial(last=True)
    with Weightless():
        create_space(name, 10, size)(trial)
    return trial.params


def test_choices() -> None:
    trial = EnumeratingTrial()
    with Weightless():
        create_space("subnet:torchvision:mobilenet_v2", 10, 32)(trial)
    depths = {n: d.high for n, d in trial.distributions.items() if n.startswith("depth")}

    assert depths == {"depth_2": 2, "depth_3": 3, "depth_4": 4, "depth_5": 3, "depth_6": 3}
    widths = [n for n in trial.params if n.startswith("width")]
    assert widths == [*(f"width_{i}" for i in range(1, 8)), "width_head"]
    assert trial.distributions["width_1"].choices == (0.25, 0.5, 0.75, 1.0)


def test_parameters_by_hand() -> None:
    """Widths 8, 8, 64: a block of w channels has two convolutions of 9 w^2 and 4 w of norms."""
    stem, first, second = 3 * 8 * 9 + 16, 2 * (576 + 16), 2 * (576 + 16) + 8 * 8 + 16 + 2 * 592
    third = 9 * 8 * 64 + 9 * 64**2 + 8 * 64 + 3 * 128 + 2 * 2 * (9 * 64**2 + 128)
    model = build_network(create_space("subnet:resnet20", 10, 32), SMALL)

    assert count_params(model) == stem + first + second + third + 650 == 194_850


@pytest.mark.parametrize(
    ("name", "size"),
    [("resnet20", 32), ("torchvision:resnet18", 32), ("torchvision:mobilenet_v2", 32)],
)
@pytest.mark.parametrize("init", ["default", "kaiming"])
def test_full_size_is_the_teacher_to_the_bit(name: str, size: int, init: str) -> None:
    space = create_space(f"subnet:{name}", 10, size)
    student = fresh(partial(build_network, space, largest(f"subnet:{name}")), init, 0).eval()
    teacher = fresh(partial(create_teacher, name, 10, size), init, 0).eval()

    ours, theirs = student.state_dict(), teacher.state_dict()
    assert list(ours) == list(theirs) and all(torch.equal(ours[n], theirs[n]) for n in ours)
    with torch.no_grad():
        images = torch.randn(2, 3, size, size)
        assert torch.equal(student(images), teacher(images))


def test_weights_of_a_trained_teacher() -> None:
    teacher = create_teacher("resnet20", 10, 32)
    before = teacher.conv1.weight.clone()
    model = subnet.from_teacher(teacher, SMALL, "resnet20", 10, 32)
    half, quarter = [0, 2, 4, 6, 8, 10, 12, 14], [0, 4, 8, 12, 16, 20, 24, 28]

    assert torch.equal(model.conv1.weight, before[half])
    assert torch.equal(teacher.conv1.weight, before)
    last = teacher.layer2[2].conv2.weight
    assert torch.equal(model.layer2[1].conv2.weight, last[quarter][:, quarter])


@pytest.mark.parametrize("name", ["resnet20", "vit"])
def test_even_inheritance_gives_the_same_weights(name: str, vit: str) -> None:
    name, params = (vit, {"depth_1": 3, "width_1": 0.5}) if name == "vit" else (name, SMALL)
    teacher = create_teacher(name, 10, 32).eval()
    wanted = subnet.from_teacher(teacher, params, name, 10, 32).state_dict()
    student = build_network(create_space(f"subnet:{name}", 10, 32), params)
    inherit(teacher, student, channels="even")

    assert all(torch.equal(value, wanted[n]) for n, value in student.state_dict().items())


def test_transformer_is_one_built_so(vit: str) -> None:
    space = create_space(f"subnet:{vit}", 10, 32)
    model = build_network(space, {"depth_1": 2, "width_1": 0.5}).eval()
    wanted = VisionTransformer(32, 8, num_classes=10, embed_dim=16, depth=2, num_heads=2).eval()

    wanted.load_state_dict(model.state_dict())
    with torch.no_grad():
        images = torch.randn(2, 3, 32, 32)
        assert torch.equal(model(images), wanted(images))


def test_whole_heads_are_kept(vit: str) -> None:
    """Heads 0 and 2 of 4, of 8 features each; of q, of k and of v, which follow each other."""
    teacher = create_teacher(vit, 10, 32)
    model = subnet.from_teacher(teacher, {"depth_1": 4, "width_1": 0.5}, vit, 10, 32)
    features = [*range(8), *range(16, 24)]
    rows = [part * 32 + i for part in range(3) for i in features]
    stream = list(range(0, 32, 2))

    for block, full in zip(model.blocks, teacher.blocks, strict=True):
        assert torch.equal(block.attn.qkv.weight, full.attn.qkv.weight[rows][:, stream])
        assert torch.equal(block.attn.proj.weight, full.attn.proj.weight[stream][:, features])
    assert torch.equal(model.pos_embed, teacher.pos_embed[:, :, stream])


def test_full_transformer_is_the_teacher(vit: str) -> None:
    params = largest(f"subnet:{vit}")
    student = fresh(
        partial(build_network, create_space(f"subnet:{vit}", 10, 32), params), "default", 0
    )
    teacher = fresh(partial(create_teacher, vit, 10, 32), "default", 0)

    assert params == {"depth_1": 4, "width_1": 1.0}
    assert all(torch.equal(v, teacher.state_dict()[n]) for n, v in student.state_dict().items())


def test_torchvision_transformer(vit: str) -> None:
    """One layer holds the heads and the tokens' features, so each head becomes narrower."""
    name = vit.replace(":vit", ":torchvision_vit")
    space = create_space(f"subnet:{name}", 10, 32)
    model = build_network(space, {"depth_1": 1, "width_1": 0.5}).eval()
    wanted = Torchvision(32, 8, 1, 4, 16, 32, num_classes=10).eval()

    state = {
        n.replace("layers.0", "layers.encoder_layer_0"): v for n, v in model.state_dict().items()
    }
    wanted.load_state_dict(state)
    with torch.no_grad():
        images = torch.randn(2, 3, 32, 32)
        assert torch.equal(model(images), wanted(images))


def test_swin_narrows_heads_and_mlps(vit: str, caplog: pytest.LogCaptureFixture) -> None:
    """The biases of positions lose the rows of the heads."""
    name = vit.replace(":vit", ":swin")
    params = {"depth_1": 2, "width_1": 0.5, "depth_2": 1, "width_2": 0.5}
    model = build_network(create_space(f"subnet:{name}", 10, 32), params)
    first = model.layers[0].blocks[1]

    assert first.attn.num_heads == 1 and first.attn.relative_position_bias_table.shape[1] == 1
    assert first.attn.qkv.weight.shape == (3 * 8, 16) and first.mlp.fc1.weight.shape == (32, 16)
    with torch.no_grad():
        assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    (line,) = caplog.messages
    assert "torch-pruning cannot narrow layers.0.blocks.1.mlp.fc2, layers.1.downsample" in line


def test_meta_device_gives_the_shapes() -> None:
    space = create_space("subnet:resnet20", 10, 32)
    with Weightless():
        model = space(FixedParamsTrial(SMALL))

    assert all(value.is_meta for value in model.state_dict().values())
    assert count_params(model) == 194_850


@pytest.mark.parametrize(("name", "size"), [("resnet20", 32), ("timm:vit_tiny_patch16_224", 224)])
def test_proposals_share_one_teacher_and_leave_it_whole(name: str, size: int) -> None:
    full = largest(f"subnet:{name}", size)
    small = {choice: 0.25 if choice.startswith("width") else 1 for choice in full}
    space = create_space(f"subnet:{name}", 10, size)
    counts = [count_params(space(FixedParamsTrial(each))) for each in (small, full)]
    for _ in range(2):
        with Weightless():
            models = [space(FixedParamsTrial(each)) for each in (small, full)]
        assert [count_params(model) for model in models] == counts

    kept = next(subnet.traced(name, 10, size).weightless.parameters())
    assert next(models[1].parameters()) is kept


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("subnet", "subnet needs a teacher, such as subnet:resnet56"),
        ("subnet:", "unknown teacher ''"),
        ("subnet:resnet21", "unknown teacher 'resnet21'; did you mean resnet32 or resnet20"),
        ("subnet:timm:resnet19", "unknown network of timm 'resnet19'"),
        ("subnet:nowhere.py:net", "no such file: nowhere.py"),
    ],
)
def test_mistakes(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        create_space(name)
    assert "\n" not in str(error.value)


def test_search_and_export_by_command(
    tmp_path: Path, vit: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a relative path, under a budget, to Python source that needs torch alone."""
    monkeypatch.chdir(tmp_path)
    small = "--data noise --classes 5 --image-size 32 --batch-size 4 --trials 4"
    found = run(
        f"search --space subnet:mine.py:vit --teacher mine.py:vit {small} --max-params 30K "
        "--out runs/sub --quiet --json"
    ).json

    assert found["rejected"] > 0 and found["best"]["model_params"] <= 30_000
    config = json.loads(Path("runs/sub/run.json").read_text())["config"]
    assert config["space"] == f"subnet:{vit}"
    assert run("export runs/sub --format safetensors --quiet").status == 0
    names = runpy.run_path("runs/sub/export/student.py")
    assert count_params(names["Student"]()) == found["best"]["model_params"]


def test_spaces_are_listed_with_a_teacher(run: Run) -> None:
    assert "subnet:TEACHER" in run("list spaces --json").json["spaces"]

"""Recipes in TOML files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import detectors
import optuna
import pytest
import torch
import toys
from timm import create_model
from torch import nn

from diswot.errors import UserError
from diswot.spaces.registry import create_space
from diswot.training.recipe import Recipe
from diswot.training.recipe_files import RECIPES, default_recipe, load_recipe, with_losses


def first(space: str) -> nn.Module:
    """Return a network of a space."""
    return create_space(space, 10, 32)(optuna.create_study().ask())


def test_all_are_here() -> None:
    assert {
        "cifar",
        "detector",
        "fast",
        "imagenet",
        "plain",
        "short",
        "transformer",
    } == RECIPES.keys()


def test_cifar() -> None:
    """As CRD and the papers after it train CIFAR-100."""
    made = load_recipe("cifar")
    assert (made.epochs, made.batch_size, made.lr) == (240, 64, 0.05)
    assert (made.momentum, made.weight_decay, made.schedule) == (0.9, 5e-4, "step")
    assert (made.crop, made.flip, made.losses) == (4, True, {"kd": 1.0})
    assert (made.milestones, made.decay) == ((150, 180, 210), 0.1)


def test_fast() -> None:
    made = load_recipe("fast")
    assert (made.epochs, made.schedule, made.label_smoothing, made.ema) == (
        24, "onecycle", 0.1, 0.998,
    )  # fmt: skip
    assert made.cutout == 8 and made.flip and made.crop == 4


def test_imagenet() -> None:
    made = load_recipe("imagenet")
    assert (made.epochs, made.batch_size, made.lr, made.weight_decay) == (100, 256, 0.1, 1e-4)
    assert made.milestones == (30, 60, 90) and made.area == 0.08 and made.crop == 0
    assert (made.randaugment, made.mixup, made.cutmix) == (6, 0.1, 1.0)


def test_detector() -> None:
    """The rate of a student that starts from its teacher is lower."""
    made, fresh = load_recipe("detector"), load_recipe("detector", fresh=True)
    assert (made.optimizer, made.lr, fresh.lr) == ("adamw", 1e-3, 3e-3)
    assert made.losses == {"pkd": 1.0} and made.cross_entropy == 1


def test_plain() -> None:
    assert load_recipe("plain") == Recipe()


def test_transformer() -> None:
    made = load_recipe("transformer")
    assert (made.optimizer, made.lr, made.weight_decay) == ("adamw", 5e-4, 0.05)
    assert made.warmup_epochs == 0.05 * made.epochs and made.label_smoothing == 0.1


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (toys.LinearHead, "plain"),
        (toys.NoMap, "plain"),
        (toys.Nested, "plain"),  # normalises batches, and in its head a vector
        (detectors.fcos, "detector"),
        (detectors.faster_rcnn, "detector"),
        (toys.ClassToken, "transformer"),
        (lambda: create_model("convnext_atto"), "transformer"),
        (lambda: create_model("mobilenetv3_small_050"), "plain"),
        *((partial(first, space), "transformer") for space in ("vit", "pit", "autoformer")),
        *((partial(first, space), "plain") for space in ("s0", "mobilenet", "nasbench201")),
    ],
)
def test_default(build: Callable[[], nn.Module], name: str) -> None:
    with torch.device("meta"):
        student = build()
    assert default_recipe(student) == default_recipe(student, 21) == name
    assert default_recipe(student, 20) == {"plain": "short"}.get(name, name)


def test_options_change_it() -> None:
    made = load_recipe("cifar", lr=0.2, losses={"dist": 2.0}, weight_decay=0.0)
    assert (made.lr, made.losses, made.weight_decay) == (0.2, {"dist": 2.0}, 0.0)
    assert made.epochs == 240


def test_milestones_move_with_the_epochs_and_go_with_the_schedule() -> None:
    assert load_recipe("cifar", epochs=24).milestones == (15, 18, 21)
    assert load_recipe("cifar", epochs=24, milestones=(5,)).milestones == (5,)
    assert load_recipe("cifar", schedule="cosine").milestones == ()
    assert load_recipe("cifar", schedule="step").milestones == (150, 180, 210)


def test_the_weight_of_the_cross_entropy_goes_with_the_losses_that_brought_it() -> None:
    made = load_recipe("short")
    assert (made.losses, made.cross_entropy) == ({"kd_standardised": 9.0}, 0.1)
    for losses in ("kd", {}):
        assert load_recipe("short", losses=losses).cross_entropy == 1
    assert load_recipe("short", losses="kd", cross_entropy=0.5).cross_entropy == 0.5
    assert load_recipe("short", losses="kd:published").cross_entropy == 0.1


def test_a_student_with_random_weights_has_its_own_settings(tmp_path: Path) -> None:
    """The best of what docs/tables/start.csv has: a higher rate, and attention maps beside."""
    made = load_recipe("short", fresh=True)
    assert (made.lr, made.schedule, made.cross_entropy) == (0.1, "onecycle", 0.1)
    assert made.losses == {"kd_standardised": 9.0, "at": 10.0}
    assert replace(made, lr=0.03, losses={"kd_standardised": 9.0}) == load_recipe("short")
    made = load_recipe("short", fresh=True, losses="sp:3", lr=0.2)
    assert (made.lr, made.losses, made.cross_entropy) == (0.2, {"sp": 3.0}, 1)
    assert load_recipe("plain", fresh=True) == load_recipe("plain")
    path = tmp_path / "mine.toml"
    path.write_text("lr = 0.5\n[fresh]\nlr = 0.7\n")
    assert [load_recipe(str(path), fresh=each).lr for each in (False, True)] == [0.5, 0.7]


@pytest.mark.parametrize("epochs", [10**9, 10**400])
def test_epochs_without_end_are_refused(epochs: int, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f"epochs = {epochs}\n")
    for changes in ({}, {"epochs": 7}):
        with pytest.raises(UserError, match=r"epochs must be below 1e\+09"):
            load_recipe(str(path), **changes)


def test_the_warm_up_moves_with_the_epochs() -> None:
    assert load_recipe("transformer", epochs=20).warmup_epochs == 1
    assert load_recipe("transformer", epochs=20, warmup_epochs=3).warmup_epochs == 3
    assert load_recipe("transformer", schedule="onecycle").warmup_epochs == 0
    assert load_recipe("transformer", schedule="step", milestones=(2,)).warmup_epochs == 12


def test_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'epochs = 3\nlr = 1\nflip = false\nschedule = "step"\nmilestones = [1, 2.5]\n'
        "temperature = 2\n[losses]\ndiswot = 0.5\ndkd = 2\n"
    )
    losses = {"kd": 0.5, "semantic": 0.5, "relation": 1500.0, "dkd": 2.0}
    expected = Recipe(
        epochs=3, lr=1, flip=False, schedule="step", milestones=(1, 2.5), temperature=2,
        losses=losses,
    )  # fmt: skip
    assert load_recipe(str(path)) == expected


def test_published_weights(tmp_path: Path) -> None:
    made = load_recipe("cifar", losses="kd:published")
    assert (made.losses, made.cross_entropy, made.temperature) == ({"kd": 0.9}, 0.1, None)
    assert load_recipe("cifar", losses="kd:published", cross_entropy=0.5).cross_entropy == 0.5
    assert load_recipe("cifar", losses="dkd:published").ramp_epochs == 20
    assert load_recipe("cifar", losses="dkd:published", epochs=12).ramp_epochs == 1
    path = tmp_path / "mine.toml"
    path.write_text('epochs = 24\nlosses = "dkd_standardised:published"\n')
    made = load_recipe(str(path))
    assert (made.losses, made.ramp_epochs) == ({"dkd_standardised": 9}, 2)
    assert load_recipe(str(path), epochs=48).ramp_epochs == 4
    path.write_text('cross_entropy = 0.3\nlosses = "kd:published"\n')
    assert load_recipe(str(path)).cross_entropy == 0.3
    path.write_text('losses = "at:published"\n')
    with pytest.raises(UserError, match=r"mine.toml: losses: no weight of at is published"):
        load_recipe(str(path))


def test_an_empty_one_is_the_plain_one(tmp_path: Path) -> None:
    (tmp_path / "empty.toml").write_text("# nothing\n")
    assert load_recipe(str(tmp_path / "empty.toml")) == Recipe()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rate = 0.1", "mine.toml: unknown key 'learning_rate'; known: accumulate"),
        ("epoch = 3", "mine.toml: unknown key 'epoch'; did you mean epochs or"),
        ("[losses]\nkdd = 1", "mine.toml: losses: unknown knowledge distance 'kdd'; did you mean"),
        ("[losses]\nkd = 1\ndiswot = 1", "mine.toml: losses: kd is weighted twice"),
        ('losses = "kd:x"', "mine.toml: losses: 'x' is no weight for kd"),
        ("losses = 3", "mine.toml: losses must be a table of weights, or a text"),
        ('[losses]\nkd = "1"', "mine.toml: losses must be a table of weights"),
        ("epochs = 2.5", "mine.toml: epochs must be a whole number, not 2.5"),
        ('epochs = "3"', "mine.toml: epochs must be a whole number, not '3'"),
        ("epochs = true", "mine.toml: epochs must be a whole number, not True"),
        ("lr = true", "mine.toml: lr must be a number, not True"),
        ('lr = "high"', "mine.toml: lr must be a number, not 'high'"),
        ("lr = nan", "mine.toml: lr must be above 0"),
        ("lr = -1", "mine.toml: lr must be above 0"),
        ("flip = 1", "mine.toml: flip must be true or false, not 1"),
        ("schedule = 3", "mine.toml: schedule must be a text, not 3"),
        ('schedule = "cosin"', "mine.toml: unknown schedule 'cosin'; did you mean cosine"),
        ("milestones = 3", "mine.toml: milestones must be a list of numbers, not 3"),
        ('milestones = ["a"]', "mine.toml: milestones must be a list of numbers, not ['a']"),
        ("temperature = 2025-01-01", "mine.toml: temperature must be a number, not"),
        ("fresh = 3", "mine.toml: fresh must be a table of settings, not 3"),
        ("[fresh]\nfresh = 1", "mine.toml: unknown key 'fresh'"),
        ("lr = ", "cannot read "),
        ("lr = 1\nlr = 2", "cannot read "),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_recipe(str(path))
    error = str(caught.value)
    assert message in error and str(path) in error and "\n" not in error


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown recipe 'cifr'; did you mean cifar"):
        load_recipe("cifr")
    with pytest.raises(UserError, match=r"cannot read .*none.toml: No such file"):
        load_recipe(str(tmp_path / "none.toml"))
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"cannot read .*bytes.toml"):
        load_recipe(str(tmp_path / "bytes.toml"))


def test_published_losses_bring_their_cross_entropy() -> None:
    """In Python as on the command line."""
    assert with_losses({"losses": "kd:published"}, 240)["cross_entropy"] == pytest.approx(0.1)

"""Batches of an epoch."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_training import SHORT, digits, distill, teacher
from torch.nn.functional import pad
from toys import CLASSES, LinearHead, seeded

from diswot.data.dataset import Dataset, Split, whole
from diswot.data.loader import InMemoryImages, StreamedImages
from diswot.errors import UserError
from diswot.knowledge.losses import outputs
from diswot.knowledge.registry import get_distance
from diswot.models.initialization import derive_seed
from diswot.training.batches import Batches, Part
from diswot.training.distributed import Processes
from diswot.training.recipe import Recipe
from diswot.training.trainable import check_recipe

STILL = replace(SHORT, crop=0)


def of(rank: int, count: int) -> Any:
    """Return what `Batches` asks of one of several processes."""
    one = SimpleNamespace(rank=rank, count=count)
    one.share = lambda size: Processes.share(one, size)
    one.check = lambda size, parts: Processes.check(one, size, parts)
    return one


def epoch(recipe: Recipe, rank: int = 0, count: int = 1, seed: int = 0) -> list[list[Part]]:
    train = digits().train
    assert train is not None
    return list(
        Batches(digits(), recipe, of(rank, count)).epoch(InMemoryImages(*whole(train)), seed)
    )


@pytest.mark.parametrize(
    ("batch_size", "steps"), [(32, 10), (33, 10), (330, 1), (331, 1), (5000, 1), (165, 2)]
)
def test_a_last_small_batch_is_left_out(batch_size: int, steps: int) -> None:
    batches = epoch(replace(STILL, batch_size=batch_size))
    assert [[len(part.images) for part in parts] for parts in batches] == [
        [min(batch_size, 330)]
    ] * steps


def test_images_are_seen_once_an_epoch_in_another_order() -> None:
    orders = [epoch(replace(STILL, batch_size=165), seed=seed) for seed in (0, 1)]
    seen = [torch.cat([part.indices for (part,) in order]) for order in orders]
    assert all(sorted(each.tolist()) == list(range(330)) for each in seen)
    assert not torch.equal(*seen)


def test_an_image_comes_with_its_label_and_number() -> None:
    train = digits().train
    assert train is not None
    images, labels = whole(train)
    for (part,) in epoch(STILL):
        assert torch.equal(part.labels, labels[part.indices]) and part.targets is None
        assert torch.equal(part.images, digits().normalise(images[part.indices]))


ALTERED = replace(SHORT, flip=True, cutout=2, randaugment=9, mixup=0.5, cutmix=1.0, accumulate=2)


@pytest.mark.parametrize("recipe", [SHORT, ALTERED, replace(ALTERED, views=2)])
def test_processes_see_together_what_one_sees(recipe: Recipe) -> None:
    """Also the same images mixed: an image and its partner are in one process."""
    for parts, *shares in zip(epoch(recipe), *(epoch(recipe, r, 2) for r in (0, 1)), strict=True):
        assert len(parts) == recipe.accumulate * recipe.views
        for whole_part, *halves in zip(parts, *shares, strict=True):
            assert [len(half.images) for half in halves] == [len(whole_part.images) // 2] * 2
            place = {int(index): i for i, index in enumerate(whole_part.indices)}
            for half in halves:
                rows = [place[int(index)] for index in half.indices]
                torch.testing.assert_close(half.images, whole_part.images[rows])
                assert torch.equal(half.labels, whole_part.labels[rows])
                if whole_part.targets is not None and half.targets is not None:
                    torch.testing.assert_close(half.targets, whole_part.targets[rows])


def test_mixed_images_have_the_label_of_the_larger_share() -> None:
    train = digits().train
    assert train is not None
    for (part,) in epoch(replace(STILL, mixup=1.0)):
        assert part.targets is not None and part.targets.shape == (32, CLASSES)
        assert torch.allclose(part.targets.sum(1), torch.ones(32))
        own = train.labels[part.indices]
        share = part.targets.max(1).values
        either = (part.labels == own) | (part.labels == own.flip(0))
        assert either.all() and (share >= 0.5).all()


def test_another_epoch_is_altered_otherwise() -> None:
    first, second = (epoch(replace(ALTERED, batch_size=328), seed=seed) for seed in (0, 1))
    assert not torch.equal(first[0][0].images, second[0][0].images)
    again = epoch(replace(ALTERED, batch_size=328))
    assert torch.equal(first[0][0].images, again[0][0].images)


def test_fewer_images_than_a_batch() -> None:
    """They are one batch, as far as it can be cut into equal shares; even ones for mixing."""
    for settings, size in (({}, 330), ({"accumulate": 4}, 328), ({"mixup": 1.0}, 330)):
        recipe = replace(STILL, batch_size=1000, **settings)  # type: ignore[arg-type]
        assert Batches(digits(), recipe, of(0, 1)).size == size
    assert Batches(digits(), replace(STILL, batch_size=1000, mixup=1.0), of(0, 4)).size == 328


def test_batches_that_cannot_be_cut_evenly() -> None:
    recipe = Recipe(epochs=1, batch_size=32, accumulate=3, losses={})
    with pytest.raises(UserError, match="a batch of 32 images cannot be cut evenly into 3 parts"):
        distill(None, seeded(LinearHead), digits(), recipe)
    recipe = Recipe(epochs=1, batch_size=4, accumulate=4, losses={})
    with pytest.raises(UserError, match="each of the 4 parts of a batch needs 2 images, and the b"):
        distill(None, seeded(LinearHead), digits(), recipe)
    recipe = Recipe(epochs=1, batch_size=64, accumulate=32, losses={})
    with pytest.raises(UserError, match="48 images are too few for a batch in 32 parts"):
        distill(None, seeded(LinearHead), digits(48), recipe)
    odd = replace(SHORT, batch_size=33, mixup=0.2)
    with pytest.raises(UserError, match="mix pairs, and a process has 33 images a part"):
        distill(None, seeded(LinearHead), digits(), odd)


def test_two_views_of_each_image() -> None:
    """The first has no cutout and is not mixed; both have their own shifts."""
    recipe = replace(SHORT, views=2, crop=2, cutout=6, mixup=0.5, accumulate=2)
    batches = epoch(recipe)
    assert [len(parts) for parts in batches] == [4] * 10
    for weak, strong in (pair for parts in batches for pair in (parts[:2], parts[2:])):
        assert torch.equal(weak.indices, strong.indices)
        assert weak.targets is None and strong.targets is not None
        assert not torch.equal(weak.images, strong.images)
    seen = torch.cat([parts[0].images for parts in epoch(replace(recipe, mixup=0.0))])
    train = digits().train
    assert train is not None
    padded = pad(digits().normalise(whole(train)[0]), (2, 2, 2, 2), value=math.nan)
    shifts = padded.unfold(2, 8, 1).unfold(3, 8, 1).flatten(2, 3)  # N x 3 x 25 x 8 x 8
    known = torch.cat([parts[0].indices for parts in epoch(replace(recipe, mixup=0.0))])
    off = (shifts[known] - seen[:, :, None]).abs().nan_to_num(0).flatten(3).amax((1, 3))
    assert off.amin(1).max() < 1e-5  # each is a shift of its image; a square would be seen


def test_the_loss_of_two_views_is_their_mean() -> None:
    recipe = replace(SHORT, epochs=1, batch_size=330, views=2, flip=True, losses={"mlkd": 0.5})
    student, master = seeded(LinearHead), teacher()
    (parts,) = epoch(recipe, seed=derive_seed(recipe.seed, 0))
    values = []
    for part in parts:
        shown, taught = copy.deepcopy(student).train()(part.images), master.eval()(part.images)
        pair = [outputs(each.detach(), part.labels) for each in (taught, shown)]
        values.append(float(get_distance("mlkd").between(*pair)))
    trained = distill(master, student, digits(), recipe)
    assert trained.history[0]["mlkd"] == pytest.approx(0.5 * sum(values) / 2, rel=1e-4)
    assert abs(values[0] - values[1]) > 1e-3 * values[0]


def rectangles() -> Dataset:
    """Eight images of a bright rectangle and its box, with a row of padding."""
    images, boxes = torch.zeros(8, 3, 40, 60, dtype=torch.uint8), torch.zeros(8, 2, 6)
    boxes[:, 1, 4] = -1
    for number, (image, box) in enumerate(zip(images, boxes, strict=True)):
        image[:, 10 : 20 + number, 20 : 40 - number] = 255
        box[0, :4] = torch.tensor([20, 10, 40 - number, 20 + number])
    split = Split(torch.zeros(8, dtype=torch.int64), lambda i: images[i], lambda i: boxes[i])
    look = ((0.5,) * 3, (0.5,) * 3)
    return Dataset("drawn", ("one",), 40, *look, split, split, width=60, task="detection")


@pytest.mark.parametrize("held", [True, False])
def test_boxes_move_with_their_images(held: bool) -> None:
    data = rectangles()
    assert data.train is not None
    recipe = replace(SHORT, crop=8, flip=True, batch_size=4)
    source = (
        InMemoryImages(*whole(data.train))
        if held
        else StreamedImages(data.train, torch.device("cpu"))
    )
    moved = 0
    for (part,) in Batches(data, recipe, of(0, 1)).epoch(source, 3):
        for image, boxes, index in zip(part.images, part.labels, part.indices, strict=True):
            rows, columns = (image[0] > 0).nonzero().T
            seen = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert boxes[0].tolist() == [*map(int, seen), 0, 0]
            assert boxes[1].tolist() == [0, 0, 0, 0, -1, 0]
            moved += not torch.equal(boxes, data.train.targets([int(index)])[0])
    assert moved > 4


@pytest.mark.parametrize("mixed", [{"mixup": 0.5}, {"randaugment": 9}])
def test_boxes_are_not_mixed(mixed: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="are for one label an image"):
        check_recipe(replace(SHORT, batch_size=4, **mixed), rectangles())

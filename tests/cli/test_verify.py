"""What could not be verified after a search is refused before it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from squares import few_squares
from tiny_training import digits, split_of

from diswot.cli.inputs import NamedTeacher
from diswot.cli.options import TeacherOptions, VerifyOptions
from diswot.cli.verify import check
from diswot.data.dataset import Dataset, whole
from diswot.errors import UserError


def checked(images: Dataset, **options: str) -> None:
    teacher = TeacherOptions("resnet20", Path("weights.pth"))
    check(VerifyOptions(verify=1, **options), NamedTeacher(teacher, images, sized=False), 0)


def test_a_class_of_one_image_cannot_be_split() -> None:
    data = digits()
    assert data.train is not None
    checked(data)
    pixels, labels = whole(data.train)
    labels = labels.clone()
    labels[(labels == 2).nonzero().flatten()[1:]] = 0
    with pytest.raises(UserError, match="too few images to hold out 20 % of each class"):
        checked(replace(data, train=split_of(pixels, labels)))


def test_the_recipe_is_that_of_the_task() -> None:
    data = few_squares()
    checked(data, tune="lr")
    with pytest.raises(UserError, match="no loss has a temperature to tune"):
        checked(data, tune="temperature")
    with pytest.raises(UserError, match="are for one label an image"):
        checked(data, recipe="imagenet")

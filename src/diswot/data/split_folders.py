"""Folders of a data set that are its training and its test split, found by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from diswot.data.image_files import subfolders
from diswot.errors import UserError

TRAIN_NAMES = ("train", "training", "trainset", "trainval")
TEST_NAMES = (
    *("test", "testing", "testset", "val", "valid", "validation", "valset"),
    *("dev", "eval", "evaluation", "holdout"),
)
_FILLERS = {"set", "data", "images", "imgs", "split", "folder"}


class SplitFolders(NamedTuple):
    """Folders that hold one folder a class.

    Attributes:
        train: None for test images alone.
        test: None to hold some out.
        unused: Other folders beside them, which are left out.
    """

    train: Path | None
    test: Path | None
    unused: tuple[Path, ...] = ()


def split_folders(root: Path) -> SplitFolders:
    """Find the splits of a data set in a folder, which may hold one folder a class itself.

    A folder is a split if it has the name of one, in any case and with words such as `set`, and
    holds folders. Names such as `seg_train` count if a folder such as `seg_test` is beside them.

    Raises:
        UserError: The splits are incomplete, or two folders have the name of the same split.
    """
    inner = subfolders(root)
    named = {path: role for path in inner if (role := _role(path.name))}
    splits = {path: role for path, role in named.items() if subfolders(path)}
    if not _both(splits):
        named = {path: role for path, role in named.items() if _plain(path.name)}
        splits = {path: role for path, role in splits.items() if path in named}
    if not splits:
        if len(named) == len(inner) and _both(named):
            raise UserError(
                f"{_listed(named)} in {root} have the names of splits, and hold no folder a class"
            )
        return SplitFolders(root, None)
    if flat := sorted(named.keys() - splits.keys()):
        raise UserError(
            f"{flat[0]} has the name of a split, as {_listed(splits)} has, and holds no folder a "
            "class; remove it, or name one split alone with --data"
        )
    return _chosen(root, inner, splits)


def _chosen(root: Path, inner: Sequence[Path], splits: Mapping[Path, str]) -> SplitFolders:
    """Return the only training split, and the first of the test splits."""
    train = [path for path, role in splits.items() if role == "train"]
    order = {name: place for place, name in enumerate(TEST_NAMES)}
    tests = [path for path, role in splits.items() if role == "test"]
    tests.sort(key=lambda path: min(order.get(word, len(order)) for word in _words(path.name)))
    if len(train) > 1:
        raise UserError(f"{_listed(train)} in {root} all have the name of the training images")
    if not train and len(inner) > 1:
        raise UserError(
            f"{root} has test images, in {_listed(tests)}, and no training images: rename their "
            "folder to train"
        )
    used = {*train, *tests[:1]}
    unused = tuple(path for path in inner if path not in used)
    return SplitFolders(train[0] if train else None, tests[0] if tests else None, unused)


def split_of(name: str) -> str | None:
    """Return `train`, `val` or `test` if a name has the words of that split alone, else None.

    Names are such as `instances_train2017` or `valid`.
    """
    words = {*_words(name)}
    kinds = (("train", TRAIN_NAMES), ("test", TEST_NAMES[:3]), ("val", TEST_NAMES[3:]))
    found = [kind for kind, names in kinds if words & {*names}]
    return found[0] if len(found) == 1 else None


def _role(name: str) -> str | None:
    words = set(_words(name))
    is_train, is_test = (bool(words & {*names}) for names in (TRAIN_NAMES, TEST_NAMES))
    return None if is_train == is_test else "train" if is_train else "test"


def _plain(name: str) -> bool:
    """Say whether a name has no words but those of a split."""
    return {*_words(name)} <= {*TRAIN_NAMES, *TEST_NAMES, *_FILLERS}


def _words(name: str) -> list[str]:
    """Return the words of a name in lower case: also those of `trainData`."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return re.findall(r"[^\W\d_]+", parted.casefold())


def _both(roles: Mapping[Path, str]) -> bool:
    return {"train", "test"} <= {*roles.values()}


def _listed(paths: Iterable[Path]) -> str:
    return " and ".join(sorted(path.name for path in paths))

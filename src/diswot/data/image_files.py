"""Image files and subfolders of a folder, without those of the system or of an editor."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from diswot.errors import UserError

_SYSTEM_FOLDERS = {"__macosx", "__pycache__", "@eadir", "$recycle.bin", "lost+found"}
_SYSTEM_FILES = {"thumbs.db", "desktop.ini"}
# Formats of Pillow that need another program or a handler, or whose files are seldom pictures.
_OTHER_FORMATS = {"BUFR", "EPS", "FITS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"}


def lines(path: Path) -> list[str]:
    """Return the lines of a text file that are not empty, without the space around them."""
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    return [*filter(None, map(str.strip, text.splitlines()))]


def by_name(files: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the paths of files by name.

    Raises:
        UserError: Two files have one name.
    """
    found: dict[str, str] = {}
    for name, path in files:
        if name in found:
            raise UserError(f"{found[name]} and {path} have the same name; which one is meant?")
        found[name] = path
    return found


class FilesBelow(NamedTuple):
    """Files below a folder, in the order of their folders and names: images, and others."""

    images: list[str]
    others: list[str]


@cache
def image_endings() -> frozenset[str]:
    """Return the endings of the image files that Pillow reads, in lower case, with the dot."""
    from PIL import Image

    Image.init()
    known = Image.registered_extensions().items()
    readable = Image.OPEN.keys() - _OTHER_FORMATS
    return frozenset(ending for ending, kind in known if kind in readable)


def is_image(name: str) -> bool:
    """Say whether a file has the ending of an image that Pillow reads."""
    return os.path.splitext(name)[1].lower() in image_endings()


def subfolders(path: Path) -> list[Path]:
    """Return the folders in a folder by name, without hidden ones and links to a folder above."""
    above = _with_parents(os.path.realpath(path))
    with os.scandir(path) as entries:
        names = [each.name for each in entries if each.is_dir() and not _skipped(each.name)]
    return [path / name for name in sorted(names) if os.path.realpath(path / name) not in above]


def files_in(path: Path) -> list[str]:
    """Return the names of the files directly in a folder, without hidden ones."""
    with os.scandir(path) as entries:
        return sorted(e.name for e in entries if e.is_file() and not _hidden_file(e.name))


def files_below(path: Path) -> FilesBelow:
    """Return the files in a folder at any depth; a folder that several links lead to counts once.

    Hidden files and folders are left out, and links to a folder above.
    """
    found = FilesBelow([], [])
    for folder, names in sorted(_walk(path)):
        for name in sorted(names):
            (found.images if is_image(name) else found.others).append(os.path.join(folder, name))
    return found


def _walk(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder below a folder, once, and the names of its files."""
    seen = _with_parents(os.path.realpath(root))
    for folder, folders, names in os.walk(root, followlinks=True):
        new = {name: os.path.realpath(os.path.join(folder, name)) for name in sorted(folders)}
        folders[:] = []
        for name, place in new.items():
            if not _skipped(name) and place not in seen:
                seen.add(place)
                folders.append(name)
        yield folder, [name for name in names if not _hidden_file(name)]


def _with_parents(place: str) -> set[str]:
    return {place, *map(str, Path(place).parents)}


def _skipped(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SYSTEM_FOLDERS


def _hidden_file(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SYSTEM_FILES

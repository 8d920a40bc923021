"""Which files of a folder are photos. No TensorFlow."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

EXTENSIONS = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
)
"""Endings of the files that are taken for photos in a folder, in lower case."""


def list_photos(folder: str | Path) -> list[Path]:
    """The photos in a folder, at any depth, by their names' ending (``EXTENSIONS``).

    Hidden files and folders (``.name``), folders called ``__name``, pipes and sockets are left out. Links are followed,
    but every real folder is visited once. A link to the folder itself or to a folder above it is not followed, because
    the photos of other classes would be listed under it.

    Args:
        folder: A folder.

    Returns:
        Paths below ``folder``, sorted within each folder. A link to a file that is gone is among them, so that a
        reader can name it.

    Example:
        >>> list_photos("photos/cat")  # doctest: +SKIP
        [PosixPath('photos/cat/001.jpg'), PosixPath('photos/cat/kittens/017.png')]
    """
    return [Path(path) for path in _walk(os.fspath(folder), _above(Path(folder)))]


def list_folders(folder: str | Path) -> list[Path]:
    """The folders in a folder, sorted; the same ones are left out as by ``list_photos``."""
    above = _above(Path(folder))
    with os.scandir(folder) as entries:
        return sorted(Path(e.path) for e in entries if _is_open_folder(e) and _identity(e.path) not in above)


_Identity = tuple[int, int]


def _identity(path: str | Path) -> _Identity:
    """The device and the number of a file or folder: the same through every link to it."""
    status = os.stat(path)  # noqa: PTH116  # called for every folder: Path would double the time
    return status.st_dev, status.st_ino


def _above(folder: Path) -> set[_Identity]:
    """The folder itself and all folders above it, as the path is written and as it really lies."""
    return {
        _identity(path) for start in (folder.absolute(), folder.resolve()) for path in (start, *start.parents)
    }


def _is_open_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir() and not entry.name.startswith((".", "__"))
    except OSError:  # a link in a circle
        return False


def _walk(folder: str, visited: set[_Identity]) -> Iterator[str]:
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        if _is_open_folder(entry):
            identity = _identity(entry.path)
            if identity not in visited:
                visited.add(identity)
                yield from _walk(entry.path, visited)
        elif is_photo_name(entry.name) and _is_file_or_dangling(entry):
            yield entry.path


def is_photo_name(name: str) -> bool:
    """Whether a file of this name is taken for a photo: by its ending, and hidden files are not."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS  # noqa: PTH122


def _is_file_or_dangling(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))  # noqa: PTH110
    except OSError:  # a link in a circle
        return True

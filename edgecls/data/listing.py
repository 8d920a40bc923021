"""Which files of a folder are photos, and what a folder's name says of its purpose. No TensorFlow."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

EXTENSIONS = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
)
"""Endings of the files that are taken for photos in a folder, in lower case."""

UNREAD = frozenset(
    (
        *(".heic", ".heif", ".avif", ".jxl", ".jp2", ".j2k", ".svg", ".psd", ".exr", ".hdr", ".dcm", ".tga"),
        *(".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),
        *(".mp4", ".mov", ".avi", ".mkv", ".zip", ".tar", ".tgz", ".gz", ".7z", ".rar", ".npy", ".npz"),
    )
)
"""Endings of files that hold images and are not read, in lower case: a listing counts them."""

SYSTEM_FOLDERS = frozenset(
    ("@eadir", "@recycle", "@tmp", "#recycle", "#snapshot", "$recycle.bin", "lost+found")
)
"""Folders that disks and network storage keep for themselves (thumbnails, deleted files), in lower case."""

NO_FILE = "pipe or device"


class Listing(NamedTuple):
    """The files of a folder, at any depth.

    Attributes:
        photos: Paths of the photos, sorted within each folder.
        unread: How many other files hold images: counts by ending (``UNREAD``), or of ``NO_FILE``.
    """

    photos: list[Path]
    unread: Counter[str]


def list_files(folder: str | Path) -> Listing:
    """The photos in a folder, at any depth, by their names' ending (``EXTENSIONS``), and counts of what is not read.

    Hidden files and folders (``.name``), folders called ``__name``, ``SYSTEM_FOLDERS``, pipes and sockets are left
    out. Links are followed, but every real folder is visited once. A link to the folder itself or to a folder above it
    is not followed, because the photos of other classes would be listed under it.

    Args:
        folder: A folder.

    Returns:
        Paths below ``folder``. A link to a file that is gone is among them, so that a reader can name it.

    Example:
        >>> list_files("photos/cat").unread  # doctest: +SKIP
        Counter({'.heic': 12})
    """
    unread: Counter[str] = Counter()
    photos = [Path(path) for path in _walk(os.fspath(folder), _above(Path(folder)), unread)]
    return Listing(photos, unread)


def list_photos(folder: str | Path) -> list[Path]:
    """The photos of ``list_files``.

    Example:
        >>> list_photos("photos/cat")  # doctest: +SKIP
        [PosixPath('photos/cat/001.jpg'), PosixPath('photos/cat/kittens/017.png')]
    """
    return list_files(folder).photos


def list_folders(folder: str | Path) -> list[Path]:
    """The folders in a folder, sorted; the same ones are left out as by ``list_files``."""
    above = _above(Path(folder))
    with os.scandir(folder) as entries:
        return sorted(Path(e.path) for e in entries if _is_open_folder(e) and _identity(e.path) not in above)


def said_of_unread(unread: Counter[str]) -> str:
    """One line on the files that a listing left out; empty if there are none.

    Example:
        >>> said_of_unread(Counter({".heic": 12, ".avif": 1}))
        'not read: 12 .heic, 1 .avif (convert them to JPEG or PNG)'
    """
    if not unread:
        return ""
    counts = ", ".join(f"{count:,} {kind}" for kind, count in unread.most_common())
    return f"not read: {counts}" + (" (convert them to JPEG or PNG)" if set(unread) - {NO_FILE} else "")


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
        name = entry.name
        return entry.is_dir() and not name.startswith((".", "__")) and name.lower() not in SYSTEM_FOLDERS
    except OSError:  # a link in a circle
        return False


def _walk(folder: str, visited: set[_Identity], unread: Counter[str]) -> Iterator[str]:
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        if _is_open_folder(entry):
            identity = _identity(entry.path)
            if identity not in visited:
                visited.add(identity)
                yield from _walk(entry.path, visited, unread)
        elif is_photo_name(entry.name):
            if _is_file_or_dangling(entry):
                yield entry.path
            elif not _is_folder(entry):
                unread[NO_FILE] += 1
        elif not entry.name.startswith(".") and (suffix := _suffix(entry.name)) in UNREAD:
            unread[suffix] += 1


def is_photo_name(name: str) -> bool:
    """Whether a file of this name is taken for a photo: by its ending, and hidden files are not."""
    return not name.startswith(".") and _suffix(name) in EXTENSIONS


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122  # called for every file


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_file_or_dangling(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))  # noqa: PTH110
    except OSError:  # a link in a circle
        return True


# Purposes --------------------------------------------------------------------------------------------------------

_WORDS = {
    "train": ("train", "training", "trn"),
    "val": (
        "val",
        "valid",
        "validation",
        "validate",
        "validating",
        "dev",
        "development",
        "eval",
        "evaluation",
    ),
    "test": ("test", "testing", "tst", "holdout"),
}
_PURPOSE_OF_WORD = {word: purpose for purpose, words in _WORDS.items() for word in words}
_BESIDE = frozenset(
    [
        "data",
        "dataset",
        "set",
        "split",
        "list",
        "file",
        "files",
        "image",
        "images",
        "img",
        "imgs",
        "photo",
        "photos",
        "picture",
        "pictures",
    ]
)


def purpose_of(name: str) -> str | None:
    """What the name of a folder or list file says of its images: ``train``, ``val``, ``test`` or nothing.

    Case does not matter. Words such as "data", "set", "images" and "list" may stand beside the purpose, and a year
    behind it.

    Example:
        >>> [purpose_of(name) for name in ("Training", "test_data", "val-images", "dev", "val2017", "trains")]
        ['train', 'test', 'val', 'val', 'val', None]
    """
    name = re.sub(r"(?<=[A-Za-z])[-_ ]?(19|20)[0-9]{2}$", "", name)  # "train2017"
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    apart = re.sub(r"(?<=[a-z]{3})(set|data|list|images)\b", r" \1", spaced.lower())  # "trainset"
    words = [word for word in re.split(r"[^a-z]+", apart) if word]
    purposes = [_PURPOSE_OF_WORD[word] for word in words if word in _PURPOSE_OF_WORD]
    others = [word for word in words if word not in _PURPOSE_OF_WORD and word not in _BESIDE]
    if len(purposes) == 1 and not others and not re.search(r"\d", name):
        return purposes[0]
    return None

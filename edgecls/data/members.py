"""An image that lies in a larger file. No TensorFlow.

A member is written as text where a path can stand, so that all that reads, checks and caches files by their paths
takes members, too. A NUL character separates the path from the place: no path has one.
"""

from __future__ import annotations

import os
from pathlib import Path


def member(path: str | Path, start: int, length: int) -> str:
    """The ``length`` bytes from ``start`` on of a file.

    Example:
        >>> member("train.tfrecord", 120, 4096)
        'train.tfrecord\\x00120+4096'
    """
    return f"{os.fspath(path)}\0{start}+{length}"


def file_of(path: str | Path) -> str:
    """The file that a path or member is read from.

    Example:
        >>> file_of(member("train.tfrecord", 120, 4096))
        'train.tfrecord'
    """
    return os.fspath(path).partition("\0")[0]


def span_of(path: str | Path) -> tuple[int, int] | None:
    """Where a member starts and how long it is, in bytes; None for a whole file.

    Example:
        >>> span_of(member("train.tfrecord", 120, 4096)), span_of("photo.jpg")
        ((120, 4096), None)
    """
    place = os.fspath(path).partition("\0")[2]
    if not place:
        return None
    start, _, length = place.partition("+")
    return int(start), int(length)

"""Images and labels between a source and the check of the images. No TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np


@dataclass(frozen=True)
class Part:
    """Images of one purpose (training, validation, test) as the source lists them, not decoded yet.

    Attributes:
        names: Names that are stable and safe to print: a file's path below the source's folder, or the number of an
            image in an IDX file.
        labels: int64 [N].
        files: Paths, or None.
        images: uint8 [N, H, W, 1], or None.
        left_out: (name, reason) of photos in the source that belong to no class and are not used.
        bad: (name, reason) of entries of the source that cannot be used, for example a line with a label that is no
            number. They count against ``data.max_bad_fraction``.
    """

    names: list[str]
    labels: np.ndarray
    files: list[str] | None = None
    images: np.ndarray | None = None
    left_out: list[tuple[str, str]] = field(default_factory=list)
    bad: list[tuple[str, str]] = field(default_factory=list)


# Images of a class that are kept where there are too many classes for all. Two classes are always kept.
_EACH = 8


def at_most(part: Part, count: int | None) -> Part:
    """A part of at most ``count`` images, evenly over its classes; of many classes only some. None: all of it.

    Example:
        >>> part = Part([*"abcdefgh"] * 8, np.repeat([0, 1, 2, 3], 16), files=[*"abcdefgh"] * 8)
        >>> np.bincount(at_most(part, 16).labels).tolist()
        [8, 0, 0, 8]
    """
    if count is None or len(part.names) <= count:
        return part
    classes = np.unique(part.labels)
    kept = classes[np.unique(np.linspace(0, len(classes) - 1, max(2, count // _EACH)).astype(int))]
    each = [np.flatnonzero(part.labels == label) for label in kept]
    rows = np.sort(np.concatenate([_evenly(rows, count // len(kept)) for rows in each]))
    return replace(
        part,
        names=[part.names[i] for i in rows],
        labels=part.labels[rows],
        files=None if part.files is None else [part.files[i] for i in rows],
        images=None if part.images is None else part.images[rows],
    )


def _evenly(rows: np.ndarray, count: int) -> np.ndarray:
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int))]


@dataclass(frozen=True)
class Rows:
    """Images of one purpose with labels as they are written.

    Attributes:
        names: See ``Part``.
        files: Paths.
        labels: Labels as they are written; None: the image has none.
        where: The folder, or the list file and line, that gave the label of an image, for error texts.
        left_out: See ``Part``.
        bad: See ``Part``.
        notes: What was assumed of the source, one line each.
    """

    names: list[str]
    files: list[str]
    labels: list[str | None]
    where: Callable[[int], str]
    left_out: list[tuple[str, str]] = field(default_factory=list)
    bad: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

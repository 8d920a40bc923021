"""From labels as they are written (names of folders, words in a list file) to class numbers. No TensorFlow."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgecls.data.sampling import UNLABELLED
from edgecls.errors import UsageError
from edgecls.text import escape

MAX_CLASSES = 1_000_000
"""Class numbers of a list file end below this: a date or an article number is no class number."""


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
    """

    names: list[str]
    labels: np.ndarray
    files: list[str] | None = None
    images: np.ndarray | None = None
    left_out: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Row:
    """One image of a list or folder source.

    Attributes:
        name: See ``Part.names``.
        file: Path.
        label: The label as it is written; None: the image has none.
        where: The folder, or the list file and line, that gave the label.
    """

    name: str
    file: str
    label: str | None
    where: str


_NUMBER = re.compile(r"-?[0-9]{1,18}")


class Labels:
    """Turns labels of folders and list files into class numbers.

    Args:
        words: All labels there are; None and "-1" mean unlabeled.
        names: Class names in the order of their numbers; None: the words, sorted.
        count: How many classes there are, where ``names`` is None; None: as many as there are labels.
        numbers_allowed: Labels that are all whole numbers are class numbers, not names.
        fix: What to do about a label that is no class.

    Attributes:
        classes: The class names.
    """

    def __init__(
        self,
        words: Iterable[str | None],
        names: Sequence[str] | None,
        count: int | None = None,
        *,
        numbers_allowed: bool,
        fix: str,
    ) -> None:
        labels = {word for word in words if word is not None and word != "-1"}
        self.by_number = numbers_allowed and all(map(_NUMBER.fullmatch, labels))
        if names is not None and labels & set(names):  # classes that are called "0", "7", ...
            self.by_number = False
        self.fix = fix
        if names is not None:
            self.classes = list(names)
        elif self.by_number:
            highest = max(map(int, labels), default=-1)
            if highest >= MAX_CLASSES:
                what = f"label {highest} is too large for a class number"
                raise UsageError(what, fix="number the classes from 0, or use names")
            self.classes = [str(i) for i in range(highest + 1 if count is None else count)]
        else:
            self.classes = sorted(labels)
            if count not in (None, len(labels)):
                counts = f"{len(labels)} classes found, {count} expected"
                raise UsageError(counts, where="data.classes", fix=_head(self.classes))
        keys = map(str, range(len(self.classes))) if self.by_number else self.classes
        self.index: dict[str, int] = {}
        for number, key in enumerate(keys):
            self.index.setdefault(key, number)

    def number(self, row: Row) -> int:
        """The class number of an image.

        Raises:
            UsageError: Its label is no class.
        """
        if row.label is None or row.label == "-1":
            return UNLABELLED
        number = self.index.get(str(int(row.label)) if self.by_number else row.label)
        if number is None:
            label, count = escape(row.label), len(self.classes)
            classes = f"0 to {count - 1}" if self.by_number else _head(self.classes)
            what = f"label '{label}' is not among the {count} classes ({classes})"
            raise UsageError(what, where=escape(row.where), fix=self.fix)
        return number


def number_rows(rows: list[Row], labels: Labels) -> Part:
    """The images with class numbers.

    Raises:
        UsageError: A label is no class.
    """
    return Part(
        names=[row.name for row in rows],
        labels=np.array([labels.number(row) for row in rows], np.int64),
        files=[row.file for row in rows],
    )


def _head(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(map(escape, names[:most])) + (", ..." if len(names) > most else "")

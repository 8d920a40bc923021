"""The columns of list files that a program wrote, by a few operations on all bytes at once. No TensorFlow.

Nearly every long list is regular: each line has the same separators, none is empty, quoted or a comment, and no spaces
stand around a field. A list of a million such lines is read without a Python step for each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import overload

import numpy as np

_BLOCK = 1 << 16
"""Lines that are decoded at once: the text of all lines is never in memory."""
_NEWLINE, _SPACE = ord("\n"), ord(" ")
_FIRST = np.frombuffer(b" \t#'", np.uint8)  # what begins lines that need a closer look
_LAST = np.frombuffer(b" \t", np.uint8)


class Columns(Sequence[Sequence[str]]):
    """Rows that are kept as columns: millions of strings need no tuples around them.

    Example:
        >>> rows = Columns([["a.png", "b.png"], ["cat", "dog"]])
        >>> rows[1], list(rows[:1]), rows.columns[0]
        (('b.png', 'dog'), [('a.png', 'cat')], ['a.png', 'b.png'])
    """

    def __init__(self, columns: list[list[str]]) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns[0])

    @overload
    def __getitem__(self, index: int) -> tuple[str, ...]: ...
    @overload
    def __getitem__(self, index: slice) -> Columns: ...
    def __getitem__(self, index: int | slice) -> tuple[str, ...] | Columns:
        if isinstance(index, slice):
            return Columns([column[index] for column in self.columns])
        return tuple(column[index] for column in self.columns)


class Lines:
    """The lines of a list file as bytes, none of which needs a closer look.

    Args:
        data: Lines that end with a line feed.
        starts: Where each line starts, and where the last one ends.
    """

    def __init__(self, data: bytes, starts: np.ndarray) -> None:
        self.data, self.starts = data, starts

    def __len__(self) -> int:
        return len(self.starts) - 1

    def sample(self, count: int) -> list[str]:
        """Every so many lines, as text."""
        chosen = range(0, len(self), max(1, len(self) // count))
        return [_text(self.data[self.starts[i] : self.starts[i + 1] - 1]) for i in chosen]

    def columns(self, separator: str) -> Columns | None:
        """The fields of each line; None if lines have different numbers of them, or a field has spaces around it."""
        codes = np.frombuffer(self.data, np.uint8)
        code = ord(separator)
        places = np.flatnonzero(codes == code)
        width = len(places) // len(self) + 1
        if width < 2 or len(places) != (width - 1) * len(self):
            return None
        in_line = places.reshape(len(self), width - 1)
        if (in_line[:, 0] < self.starts[:-1]).any() or (in_line[:, -1] >= self.starts[1:]).any():
            return None
        if (codes[places - 1] == _SPACE).any() or (codes[places + 1] == _SPACE).any():
            return None
        return self._split(separator, width)

    def _split(self, separator: str, width: int) -> Columns:
        columns: list[list[str]] = [[] for _ in range(width)]
        known: dict[str, str] = {}
        for start, stop in pairwise([*self.starts[:-1:_BLOCK].tolist(), len(self.data)]):
            fields = _text(self.data[start : stop - 1]).replace("\n", separator).split(separator)
            for i, column in enumerate(columns):
                part = fields[i::width]
                if 2 * len(set(part)) < len(part):  # labels: one string for all that are equal
                    part = [known.setdefault(word, word) for word in part]
                column += part
        return Columns(columns)


def plain_lines(data: bytes) -> Lines | None:
    """The lines of a file; None if some are empty, quoted, comments, or have spaces at their ends.

    Args:
        data: The content of a file, with the line ends of Unix.
    """
    if not data or b'"' in data:
        return None
    if not data.endswith(b"\n"):
        data += b"\n"
    codes = np.frombuffer(data, np.uint8)
    stops = np.flatnonzero(codes == _NEWLINE)
    starts = np.concatenate([[0], stops + 1])
    if (starts[:-1] == stops).any():
        return None
    if np.isin(codes[starts[:-1]], _FIRST).any() or np.isin(codes[stops - 1], _LAST).any():
        return None
    return Lines(data, starts)


def _text(data: bytes) -> str:
    """Bytes that are not UTF-8 become surrogates, as in all file names of Python."""
    return data.decode("utf-8", "surrogateescape")

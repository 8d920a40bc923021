"""Which columns of a list file have the images and which the labels. No TensorFlow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgecls.data.listing import EXTENSIONS, UNREAD
from edgecls.data.regular import Columns
from edgecls.errors import UsageError
from edgecls.text import escape

Column = str | int
"""A column of a list: its name in the header, or its number from 1."""

SAMPLE = 200
"""Lines that the form of a list is judged by."""
SUFFIXES = tuple(EXTENSIONS | UNREAD)
IMAGE_NAMES = [
    "image",
    "image_path",
    "image_file",
    "filepath",
    "file_path",
    "path",
    "filename",
    "file_name",
    "file",
    "img",
    "img_path",
    "img_name",
    "name",
    "id",
]
LABEL_NAMES = [
    "label",
    "labels",
    "class",
    "class_name",
    "classname",
    "category",
    "target",
    "class_id",
    "label_id",
    "category_id",
    "species",
    "y",
]


@dataclass
class Table:
    """A list file as columns of text.

    Attributes:
        rows: The fields of each line; a line may have fewer than ``header`` or others.
        numbers: The line of each row in the file, from 1.
        header: Names of the columns, if the file has them.
        notes: What was assumed, one line each.
    """

    rows: Sequence[Sequence[str]]
    numbers: Sequence[int]
    header: Sequence[str] | None = None
    notes: list[str] = field(default_factory=list)

    def column(self, index: int | None) -> list[str]:
        """A field of each row; empty where a row has none."""
        if index is None:
            return [""] * len(self.rows)
        if isinstance(self.rows, Columns):
            return self.rows.columns[index] if index < len(self.rows.columns) else [""] * len(self.rows)
        return [row[index] if len(row) > index else "" for row in self.rows]


def is_image(text: str) -> bool:
    """Whether a field ends like the name of an image file."""
    return text.strip(" \t\"'").lower().endswith(SUFFIXES)


def choose_columns(
    table: Table, path: Path, image_column: Column | None, label_column: Column | None
) -> tuple[int, int | None]:
    """The columns of the images and of the labels; None where there are no labels."""
    width = Counter(map(len, _sample_rows(table))).most_common(1)[0][0]
    image = _index(table, path, image_column, width, "image_column")
    label = _index(table, path, label_column, width, "label_column")
    if image is None:
        candidates = [i for i in range(width) if i != label]
        image = _image_index(table, path, candidates) if candidates else 0
    if label is None:
        label = _label_index(table, path, [i for i in range(width) if i != image])
    if label is not None and (width > 2 or table.header):
        written = f"images from {_called(table, image)}, labels from {_called(table, label)}"
        table.notes.append(written)
    return image, label


def _sample_rows(table: Table) -> list[Sequence[str]]:
    return list(table.rows[:: max(1, len(table.rows) // SAMPLE)])


def _index(table: Table, path: Path, column: Column | None, width: int, key: str) -> int | None:
    if column is None:
        return None
    header = list(table.header or ())
    if isinstance(column, int):
        index = column - 1
    else:
        lower = [name.casefold() for name in header]
        index = header.index(column) if column in header else -1
        index = lower.index(column.casefold()) if index < 0 and column.casefold() in lower else index
    if not 0 <= index < max(width, len(header)):
        names = ", ".join(map(escape, header)) if header else f"1 to {width}, there is no header"
        raise UsageError(f"no column {column!r} in the list", where=str(path), fix=f"data.{key}: {names}")
    return index


def _called(table: Table, column: int) -> str:
    if table.header and column < len(table.header):
        return f"column '{escape(table.header[column])}'"
    return f"column {column + 1}"


def _image_index(table: Table, path: Path, candidates: list[int]) -> int:
    """The column in which most fields are names of images."""
    sample = _sample_rows(table)
    hits = {i: sum(len(row) > i and is_image(row[i]) for row in sample) for i in candidates}
    best = [i for i in candidates if hits[i] == max(hits.values()) and (hits[i] or table.header or i == 0)]
    if len(best) > 1:
        best = _by_name(table, best, IMAGE_NAMES) or (best[:1] if not max(hits.values()) else best)
    if len(best) > 1:
        names = " and ".join(_called(table, i) for i in best)
        raise UsageError(f"{names} both name images", where=str(path), fix="choose one: data.image_column")
    return best[0]


def _label_index(table: Table, path: Path, candidates: list[int]) -> int | None:
    """The only other column, or the one that a header calls so."""
    sample = _sample_rows(table)
    filled = [i for i in candidates if any(len(row) > i and row[i].strip() for row in sample)]
    if len(filled) == 1:
        rest = [row[filled[0]].split() for row in sample if len(row) > filled[0]]
        if table.header is None and all(len(words) > 1 and all(map(_is_number, words)) for words in rest):
            what = f"lines have several labels, such as '{' '.join(rest[0])}': one class an image is trained"
            raise UsageError(what, where=str(path), fix="keep one, or choose it: data.label_column: 2")
    if len(filled) < 2:
        return filled[0] if filled else None
    if named := _by_name(table, filled, LABEL_NAMES):
        return named[0]
    names = ", ".join(map(escape, table.header)) if table.header else f"1 to {max(filled) + 1}"
    what = f"{len(filled) + 1} columns, and it is not clear which one is the label"
    raise UsageError(what, where=str(path), fix=f"set data.label_column, one of {names}")


def _by_name(table: Table, columns: list[int], names: Sequence[str]) -> list[int]:
    """The column that a header calls by the first of ``names`` that it has, as a list of one; else none."""
    called = {name.casefold(): i for i, name in reversed(list(enumerate(table.header or ()))) if i in columns}
    return next(([called[name]] for name in names if name in called), [])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

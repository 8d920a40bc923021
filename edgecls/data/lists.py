"""List files as people write them: any delimiter, quotes, header, comments, foreign paths. No TensorFlow.

Each function takes one decision for the whole file, from a sample of its lines, and says what it assumed where
that is not the plain ``path label``. A list of a million lines loads in seconds.
"""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from edgecls.data.listing import EXTENSIONS, UNREAD
from edgecls.data.paths import locate
from edgecls.data.rows import Rows
from edgecls.errors import UsageError
from edgecls.text import escape

Column = str | int
"""A column of a list: its name in the header, or its number from 1."""

SAMPLE = 200
"""Lines that the form of a list is judged by."""
MOSTLY = 0.9
DELIMITERS = {"\t": "tab", ",": "comma", ";": "semicolon", "|": "pipe"}
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

_SUFFIXES = tuple(EXTENSIONS | UNREAD)
_USUAL = frozenset((".jpg", ".JPG", "JPEG", "jpeg", ".png", ".PNG"))  # ends of names in most lists
_NAMED = re.compile(rf"(.*(?:{'|'.join(map(re.escape, _SUFFIXES))}))(?:[ \t]+(.*))?", re.IGNORECASE)
_QUOTED = re.compile(r"""(["'])(.+?)\1(?:[ \t]+(.*))?""")


@dataclass
class Table:
    """A list file as columns of text.

    Attributes:
        rows: The fields of each line; a line may have fewer than ``header`` or others.
        numbers: The line of each row in the file, from 1.
        header: Names of the columns, if the file has them.
        notes: What was assumed, one line each.
    """

    rows: list[Sequence[str]]
    numbers: Sequence[int]
    header: Sequence[str] | None = None
    notes: list[str] = field(default_factory=list)


def read_list(path: Path, image_column: Column | None = None, label_column: Column | None = None) -> Rows:
    """The images of a list file.

    Args:
        path: The file. Paths of images start from its folder.
        image_column: Column of the paths; None: the one with names of image files.
        label_column: Column of the labels; None: the one that is called so, or the only other one.

    Returns:
        Images and labels as they are written; None where a line has no label.

    Raises:
        UsageError: The file cannot be read, or its columns can mean several things.
        MissingError: None of the images is there.
    """
    table = _table(path, with_columns=label_column is not None)
    if not table.rows:
        return Rows([], [], [], lambda i: str(path))
    image, label = _columns(table, path, image_column, label_column)
    notes = table.notes
    named: list[tuple[int, Sequence[str]]] = []
    without: list[tuple[int, Sequence[str]]] = []
    for number, row in zip(table.numbers, table.rows, strict=True):
        (named if len(row) > image and row[image] else without).append((number, row))
    names, files, assumed = locate([row[image] for _, row in named], path)
    labels = [
        (row[label].strip() or None) if label is not None and len(row) > label else None for _, row in named
    ]
    numbers = [number for number, _ in named]
    if 0 < (missing := labels.count(None)) < len(labels):
        notes = [*notes, f"{missing:,} of {len(labels):,} lines have no label"]
    return Rows(
        names,
        files,
        labels,
        where=lambda i: f"{path}:{numbers[i]}",
        bad=[(f"line {number}", "no image is named") for number, _ in without],
        notes=[f"{path.name}: {note}" for note in [*notes, *assumed, *_contradictions(names, labels)]],
    )


def _contradictions(names: list[str], labels: list[str | None]) -> list[str]:
    """A line on images that are listed with two labels."""
    if len(set(names)) == len(names):
        return []
    pairs = Counter(name for name, _ in set(zip(names, labels, strict=True)))
    twice = sorted(name for name, count in pairs.items() if count > 1)
    return [f"{len(twice):,} images are listed with different labels, such as {twice[0]}"] if twice else []


# The file as a table ---------------------------------------------------------------------------------------------


def _table(path: Path, with_columns: bool) -> Table:
    lines, numbers, notes = _lines(path)
    table = Table([], numbers, None, notes)
    if not lines:
        return table
    folder = path.parent
    delimiter = _delimiter(_sample(lines), folder)
    if delimiter is None:
        table.rows = _words(lines, folder, table.notes, with_columns)
    else:
        table.rows = _fields(lines, delimiter)
        table.notes.append(f"columns are separated by a {DELIMITERS[delimiter]}")
    _take_header(table, folder, with_columns)
    return table


def _lines(path: Path) -> tuple[list[str], Sequence[int], list[str]]:
    """The lines that say something, their numbers, and what was left out.

    Bytes that are not UTF-8 become surrogates, as in all file names of Python.
    """
    try:
        text = path.read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        fix = "a list file has one `path label` a line; a folder is data.source: folder"
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path), fix=fix) from None
    if "\0" in text:
        raise UsageError("not a UTF-8 text file", where=str(path), fix="save it as UTF-8")
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    lines = [line.strip(" ") for line in (text if "\n" in text else text.replace("\r", "\n")).split("\n")]
    keep = [i for i, line in enumerate(lines) if line.strip()]
    comments = [i for i in keep if lines[i].startswith("#") and not _is_there(lines[i], path.parent)]
    notes = [f"{len(comments):,} lines that begin with # are comments"] if comments else []
    chosen = sorted(set(keep) - set(comments)) if comments else keep
    return (
        [lines[i] for i in chosen],
        range(1, len(chosen) + 1) if chosen == list(range(len(chosen))) else [i + 1 for i in chosen],
        notes,
    )


def _is_there(line: str, folder: Path) -> bool:
    """Whether a line begins with the name of a file that is there."""
    found = _NAMED.match(line)
    return found is not None and os.path.lexists(folder / found[1])


def _sample(items: Sequence[str]) -> list[str]:
    return list(items[:: max(1, len(items) // SAMPLE)])


def _is_image(text: str) -> bool:
    return text.strip(" \t\"'").lower().endswith(_SUFFIXES)


def _is_file(folder: Path, text: str) -> bool:
    return bool(text) and os.path.isfile(folder / text)  # noqa: PTH113  # Path raises for long names


def _delimiter(sample: list[str], folder: Path) -> str | None:
    """The character that separates the columns; None where spaces and tabs do, or there is one column."""

    tests: list[Callable[[str], bool]] = [_is_image, partial(_is_file, folder), lambda text: True]
    for test in tests:
        for delimiter in DELIMITERS:
            rows = _fields(sample, delimiter)
            width = Counter(map(len, rows)).most_common(1)[0]
            good = sum(len(row) > 1 and any(map(test, row)) for row in rows)
            if width[0] > 1 and min(width[1], good) >= _most_of(len(rows)):
                return delimiter
        if test is _is_image and sum(_NAMED.fullmatch(line) is not None for line in sample) >= _most_of(
            len(sample)
        ):
            return None
    return None


def _most_of(count: int) -> float:
    """How many lines of a sample must agree: nearly all, and the first may be a header."""
    return max(1, min(MOSTLY * count, count - 1))


def _fields(lines: Iterable[str], delimiter: str) -> list[Sequence[str]]:
    """The fields of each line; quotes may enclose a field."""
    return [
        next(csv.reader([line], delimiter=delimiter, skipinitialspace=True))
        if '"' in line
        else [text.strip(" ") for text in line.split(delimiter)]
        for line in lines
    ]


def _words(lines: list[str], folder: Path, notes: list[str], with_columns: bool) -> list[Sequence[str]]:
    """Lines of a path and a label with a space or tab between; the path may have spaces, the label too."""
    rows = [
        (name, label)
        if name[-4:] in _USUAL and label.isalnum() and "\t" not in name and name[0] not in "\"'"
        else _path_and_label(line)
        for line in lines
        for name, _, label in (line.partition(" "),)
    ]
    if _labels_come_first(_sample(lines), folder):
        notes.append("the label is written before the path")
        rows = [tuple(reversed(line.replace("\t", " ").split(" ", 1))) for line in lines]
    if with_columns:
        return [(row[0], *row[1].split()) if len(row) > 1 else row for row in rows]
    return rows


def _path_and_label(line: str) -> Sequence[str]:
    if line[0] in "\"'" and (quoted := _QUOTED.fullmatch(line)):
        return (quoted[2], quoted[3] or "")
    line = line.replace("\t", " ")
    name, _, label = line.rpartition(" ")
    if name.lower().endswith(_SUFFIXES) and not label.lower().endswith(_SUFFIXES):  # nearly always
        return (name.rstrip(" "), label)
    if found := _NAMED.fullmatch(line):
        return (found[1], found[2] or "")
    return (name.rstrip(" "), label) if name else (line, "")


def _labels_come_first(sample: list[str], folder: Path) -> bool:
    """Whether lines are ``label path``: no line is the name of a file, but what follows the first word is."""
    if not all(_is_image(line) and len(line.split()) > 1 for line in sample):
        return False
    rest = [line.replace("\t", " ").split(" ", 1)[1].strip(" ") for line in sample]
    whole_there, rest_there = (
        sum(os.path.lexists(folder / name) for name in names) for names in (sample, rest)
    )
    return not whole_there and rest_there > 0


def _take_header(table: Table, folder: Path, with_columns: bool) -> None:
    """Move the first row to ``header`` if it names columns: it has no image where nearly all others have one."""

    def has_image(row: Sequence[str]) -> bool:
        return any(_is_image(text) or _is_file(folder, text) for text in row)

    rest = table.rows[1 :: max(1, len(table.rows) // SAMPLE)]
    first = [text.strip().casefold() for text in table.rows[0]]
    known = set(IMAGE_NAMES) & set(first) and set(LABEL_NAMES) & set(first)
    if not rest or has_image(table.rows[0]):
        return
    if not known and sum(map(has_image, rest)) < MOSTLY * len(rest):
        return
    table.header = [text.strip() for text in table.rows[0]]
    table.rows, table.numbers = table.rows[1:], table.numbers[1:]
    shown = ", ".join(map(escape, table.header))
    table.notes.append(f"the first line is a header ({shown})")


# Columns ---------------------------------------------------------------------------------------------------------


def _columns(
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
    hits = {i: sum(len(row) > i and _is_image(row[i]) for row in sample) for i in candidates}
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

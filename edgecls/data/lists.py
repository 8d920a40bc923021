"""List files as people write them: any delimiter, quotes, header, comments, foreign paths. No TensorFlow.

Each function takes one decision for the whole file, from a sample of its lines, and says what it assumed where
that is not the plain ``path label``. Long lists are mostly regular and are read as columns of text
(``edgecls.data.regular``); all others line by line.
"""

from __future__ import annotations

import codecs
import csv
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import compress
from pathlib import Path

import numpy as np

from edgecls.data.columns import (
    IMAGE_NAMES,
    LABEL_NAMES,
    SAMPLE,
    SUFFIXES,
    Column,
    Table,
    choose_columns,
    is_image,
)
from edgecls.data.listing import EXTENSIONS
from edgecls.data.paths import locate
from edgecls.data.regular import plain_lines
from edgecls.data.rows import Rows
from edgecls.errors import UsageError
from edgecls.text import escape, plural

MOSTLY = 0.9
DELIMITERS = {"\t": "tab", ",": "comma", ";": "semicolon", "|": "pipe"}
_USUAL = frozenset((".jpg", ".JPG", "JPEG", "jpeg", ".png", ".PNG"))  # ends of names in most lists
_NAMED = re.compile(rf"(.*(?:{'|'.join(map(re.escape, SUFFIXES))}))(?:[ \t]+(.*))?", re.IGNORECASE)
_QUOTED = re.compile(r"""(["'])(.+?)\1(?:[ \t]+(.*))?""")


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
    image, label = choose_columns(table, path, image_column, label_column)
    images, words, numbers, notes = table.column(image), table.column(label), table.numbers, table.notes
    without = [number for number, name in zip(numbers, images, strict=True) if not name]
    header = table.header[image] if table.header and image < len(table.header) else ""
    if without or header in images:
        keep = [bool(name) and name != header for name in images]
        if again := len(images) - len(without) - sum(keep):
            notes = [*notes, f"the header is left out where it comes again: {plural(again, 'line')}"]
        images, words = list(compress(images, keep)), list(compress(words, keep))
        numbers = list(compress(numbers, keep))
    del table  # its other columns
    names, files, assumed = locate(images, path)
    meant = {word: word.strip() or None for word in set(words)}
    labels = [meant[word] for word in words]
    if 0 < (missing := labels.count(None)) < len(labels):
        notes = [*notes, f"{missing:,} of {len(labels):,} lines {'has' if missing == 1 else 'have'} no label"]
    return Rows(
        names,
        files,
        labels,
        where=lambda i: f"{path}:{numbers[i]}",
        bad=[(f"line {number}", "no image is named") for number in without],
        notes=[f"{path.name}: {note}" for note in [*notes, *assumed, *_contradictions(names, labels)]],
    )


def _contradictions(names: list[str], labels: list[str | None]) -> list[str]:
    """A line on images that are listed with two labels."""
    hashes = np.sort(
        np.fromiter(map(hash, names), np.int64, len(names))
    )  # a set would need as much as the names
    if (hashes[1:] != hashes[:-1]).all():
        return []
    pairs = Counter(name for name, _ in set(zip(names, labels, strict=True)))
    twice = sorted(name for name, count in pairs.items() if count > 1)
    count = plural(len(twice), "image is", "images are")
    return [f"{count} listed with different labels, such as {twice[0]}"] if twice else []


# The file as a table ---------------------------------------------------------------------------------------------


def _table(path: Path, with_columns: bool) -> Table:
    data = _content(path)
    table = _regular(data, path.parent, with_columns) or _irregular(data, path.parent, with_columns)
    if table.rows:
        _take_header(table, path.parent)
    return table


def _content(path: Path) -> bytes:
    """What a file holds, as UTF-8 with the line ends of Unix and without a byte order mark."""
    try:
        data = path.read_bytes()
    except OSError as error:
        fix = "a list file has one `path label` a line; a folder is data.source: folder"
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path), fix=fix) from None
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # "Unicode" in programs of Windows
        data = data.decode("utf-16", "replace").encode()
    if b"\0" in data:
        raise UsageError("not a UTF-8 text file", where=str(path), fix="save it as UTF-8")
    data = data.removeprefix(codecs.BOM_UTF8)
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n")
    return data if b"\n" in data else data.replace(b"\r", b"\n")


def _regular(data: bytes, folder: Path, with_columns: bool) -> Table | None:
    """A list that can be read as columns; None where its lines need a closer look."""
    lines = plain_lines(data)
    if lines is None:
        return None
    delimiter = _delimiter(lines.sample(SAMPLE), folder)
    if delimiter is None and (with_columns or b"\t" in data):
        return None
    rows = lines.columns(delimiter or " ")
    if rows is None:
        return None
    if delimiter is None and (len(rows.columns) > 2 or any(map(is_image, set(rows.columns[1])))):
        return None
    return Table(rows, range(1, len(rows) + 1), None, _said_of(delimiter))


def _irregular(data: bytes, folder: Path, with_columns: bool) -> Table:
    lines, numbers, notes = _lines(data, folder)
    if not lines:
        return Table([], numbers)
    delimiter = _delimiter(_sample(lines), folder)
    rows = _words(lines, folder, notes, with_columns) if delimiter is None else _fields(lines, delimiter)
    return Table(rows, numbers, None, notes + _said_of(delimiter))


def _said_of(delimiter: str | None) -> list[str]:
    return [] if delimiter is None else [f"columns are separated by a {DELIMITERS[delimiter]}"]


def _lines(data: bytes, folder: Path) -> tuple[list[str], Sequence[int], list[str]]:
    """The lines that say something, their numbers, and what was left out.

    Bytes that are not UTF-8 become surrogates, as in all file names of Python.
    """
    lines = [line.strip(" ") for line in data.decode("utf-8", "surrogateescape").split("\n")]
    keep = [i for i, line in enumerate(lines) if line.strip()]
    comments = [i for i in keep if lines[i].startswith("#") and not _is_there(lines[i], folder)]
    said = plural(
        len(comments), "line that begins with # is a comment", "lines that begin with # are comments"
    )
    notes = [said] if comments else []
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


def _is_file(folder: Path, text: str) -> bool:
    return bool(text) and os.path.isfile(folder / text)  # noqa: PTH113  # Path raises for long names


def _lacks_ending(folder: Path, text: str) -> bool:
    """Whether a text is the name of an image file without its ending, as ``paths.locate`` adds it."""
    return any(
        _is_file(folder, text + end) for suffix in EXTENSIONS for end in (suffix, suffix.upper()) if text
    )


def _delimiter(sample: list[str], folder: Path) -> str | None:
    """The character that separates the columns; None where spaces and tabs do, or there is one column."""

    tests: list[Callable[[str], bool]] = [is_image, partial(_is_file, folder), lambda text: True]
    for test in tests:
        for delimiter in DELIMITERS:
            rows = _fields(sample, delimiter)
            width = Counter(map(len, rows)).most_common(1)[0]
            good = sum(len(row) > 1 and any(map(test, row)) for row in rows)
            if width[0] > 1 and min(width[1], good) >= _most_of(len(rows)):
                return delimiter
        if test is is_image and sum(_NAMED.fullmatch(line) is not None for line in sample) >= _most_of(
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
    rows = [(name, _unquoted(label)) if label[:1] in ('"', "'") else (name, label) for name, label in rows]
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
    if name.lower().endswith(SUFFIXES) and not label.lower().endswith(SUFFIXES):  # nearly always
        return (name.rstrip(" "), label)
    if found := _NAMED.fullmatch(line):
        return (found[1], found[2] or "")
    return (name.rstrip(" "), label) if name else (line, "")


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 2 and text[0] == text[-1] and text[0] in "\"'" else text


def _labels_come_first(sample: list[str], folder: Path) -> bool:
    """Whether lines are ``label path``: no line is the name of a file, but what follows the first word is."""
    if not all(is_image(line) and len(line.split()) > 1 for line in sample):
        return False
    rest = [line.replace("\t", " ").split(" ", 1)[1].strip(" ") for line in sample]
    whole_there, rest_there = (
        sum(os.path.lexists(folder / name) for name in names) for names in (sample, rest)
    )
    return not whole_there and rest_there > 0


def _take_header(table: Table, folder: Path) -> None:
    """Move the first row to ``header`` if it names columns: it has no image where nearly all others have one."""

    def has_image(row: Sequence[str]) -> bool:
        return any(is_image(text) or _is_file(folder, text) or _lacks_ending(folder, text) for text in row)

    rest = table.rows[1 :: max(1, len(table.rows) // SAMPLE)]
    first = [text.strip().casefold() for text in table.rows[0]]
    known = set(IMAGE_NAMES) & set(first) and set(LABEL_NAMES) & set(first)
    if has_image(table.rows[0]):
        return
    if not known and (not rest or sum(map(has_image, rest)) < MOSTLY * len(rest)):
        return
    table.header = [text.strip() for text in table.rows[0]]
    table.rows, table.numbers = table.rows[1:], table.numbers[1:]
    shown = ", ".join(map(escape, table.header))
    table.notes.append(f"the first line is a header ({shown})")

"""Text for people: plurals, and names that are safe to print. Imports nothing of ours, so every module may use it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Control characters, line separators, marks that reverse the direction of text, bytes that were not UTF-8.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def plural(count: int, noun: str, nouns: str | None = None) -> str:
    """A count with its noun.

    Args:
        count: The number; thousands are separated by commas.
        noun: The noun for one.
        nouns: The noun for other counts; ``noun`` with an "s" by default.

    Example:
        >>> plural(1, "thread"), plural(2000, "image"), plural(3, "class", "classes")
        ('1 thread', '2,000 images', '3 classes')
    """
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"


def escape(text: str, *, keep: str = "") -> str:
    r"""Write characters that a terminal would obey, or could not show, as Python's escapes.

    A class folder may be called anything. Printed as it is, an ESC in its name could move the cursor or change
    colors, and a line break would split a table.

    Args:
        text: For example a file name or a class name.
        keep: Characters to leave as they are, e.g. ``"\n"`` in a text of several lines.

    Example:
        >>> print(escape("red\x1b[31m\nbird"))
        red\x1b[31m\nbird
    """
    return _UNSAFE.sub(lambda found: found[0] if found[0] in keep else _escaped(found[0]), text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def first_line(error: BaseException, limit: int = 200) -> str:
    """The first line of an error's text, safe to print; the error's type where it has no text.

    Errors of libraries can be pages long. Ours are one line.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return escape(lines[0])[:limit]


def printable(value: Any) -> Any:
    r"""A copy of a result in which every text and path is safe to print; numbers stay as they are.

    Example:
        >>> printable({"class": "a\nb", "count": 3})
        {'class': 'a\\nb', 'count': 3}
    """
    if isinstance(value, (str, Path)):
        return escape(str(value))
    if isinstance(value, Mapping):
        return {printable(k): printable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [printable(v) for v in value]
    return value


def display_width(text: str) -> int:
    """Columns that a text takes in a terminal: two for a Chinese character, none for a combining accent."""
    return sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1

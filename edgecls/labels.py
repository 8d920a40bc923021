r"""Class names, and the text file they are kept in: UTF-8, one name a line, in the order of the network's outputs.

Only ``\n`` ends a line. ``str.splitlines`` also breaks at U+2028, U+0085 and form feed and would read one name as two.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgecls.errors import MissingError, UsageError
from edgecls.files import write_text
from edgecls.text import escape


def check_labels(classes: Sequence[str], where: str = "") -> None:
    """Check that class names can be kept in a label file and printed.

    Args:
        classes: The names.
        where: What the names were read from, for the error.

    Raises:
        UsageError: A name is empty, has a line break or another control character, or is not UTF-8.
    """
    for name in classes:
        if not name.strip():
            raise UsageError("a class has an empty name", where=where, fix="give every class a name")
        if (char := next((c for c in name if escape(c) != c), None)) is not None:
            fix = "rename the class (its folder, or its name in the list or recipe)"
            raise UsageError(f"class name '{escape(name)}' {_fault(char)}", where=escape(where), fix=fix)


def _fault(char: str) -> str:
    if "\ud800" <= char <= "\udfff":  # how Python shows a byte of a file name that is not UTF-8
        return "is not UTF-8"
    return f"has a {'line break' if len(f'.{char}.'.splitlines()) > 1 else 'control character'} (U+{ord(char):04X})"


def parse_labels(text: str) -> list[str]:
    r"""The names in the text of a label file; a last ``\n`` and a byte order mark are no part of them.

    Example:
        >>> parse_labels("cat\ndog\n")
        ['cat', 'dog']
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").removesuffix("\n")
    return text.split("\n") if text else []


def format_labels(classes: Sequence[str]) -> str:
    """The text of a label file.

    Raises:
        UsageError: See ``check_labels``.
    """
    check_labels(classes)
    return "".join(f"{name}\n" for name in classes)


def read_labels(path: str | Path) -> list[str]:
    """The class names in a label file.

    Raises:
        MissingError: There is no such file.
        UsageError: It cannot be read or is not UTF-8.
    """
    try:
        return parse_labels(Path(path).read_bytes().decode("utf-8"))
    except FileNotFoundError:
        raise MissingError("no such label file", where=str(path), fix="check the path") from None
    except UnicodeDecodeError:
        raise UsageError(
            "the label file is not UTF-8 text", where=str(path), fix="save it as UTF-8"
        ) from None
    except OSError as error:
        raise UsageError(f"cannot read the label file: {error.strerror}", where=str(path)) from None


def write_labels(path: str | Path, classes: Sequence[str]) -> None:
    """Write a label file atomically.

    Raises:
        UsageError: See ``check_labels``.
    """
    write_text(path, format_labels(classes))

"""Words of messages that depend on a number."""

from __future__ import annotations

from typing import Any


def count(number: int, noun: str) -> str:
    """A number and its noun, in the plural unless it is one.

    Example:
        >>> count(1, "thread"), count(2, "thread")
        ('1 thread', '2 threads')
    """
    return f"{number} {noun}{'s' * (number != 1)}"


def case_name(model: str, threads: int) -> str:
    """What was measured, as messages call it: ``"model_int8.tflite, 2 threads"``."""
    return f"{printable(model)}, {count(threads, 'thread')}"


def printable(value: Any) -> Any:
    r"""A copy of a text, or of a document, in which what a terminal would obey, or cannot show, is written as escapes.

    Example:
        >>> print(printable("a\x1b[31m.tflite"), printable({"why": ["b\n"], "n": 3}))
        a\x1b[31m.tflite {'why': ['b\\n'], 'n': 3}
    """
    if isinstance(value, str):
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)
    if isinstance(value, dict):
        return {printable(key): printable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [printable(item) for item in value]
    return value

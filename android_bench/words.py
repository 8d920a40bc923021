"""Words of messages that depend on a number."""

from __future__ import annotations


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


def printable(text: str) -> str:
    r"""A name in which characters that a terminal would obey, or cannot show, are written as escapes.

    Example:
        >>> print(printable("a\x1b[31m.tflite"))
        a\x1b[31m.tflite
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)

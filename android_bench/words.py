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
    return f"{model}, {count(threads, 'thread')}"
